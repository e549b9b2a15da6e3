#!/bin/sh
# Makes a database for the service and one for the relay, each with a user of its own that may enter no other.
# Postgres' image runs it once, when its volume is empty. The passwords come from the environment, where psql
# reads them itself: none stands in a list of processes.
set -eu

psql --set=ON_ERROR_STOP=1 --no-psqlrc --username="$POSTGRES_USER" --dbname=postgres <<'SQL'
\getenv otp_password OTP_DATABASE_PASSWORD
\getenv relay_password RELAY_DATABASE_PASSWORD
CREATE ROLE otp LOGIN PASSWORD :'otp_password';
CREATE ROLE relay LOGIN PASSWORD :'relay_password';
CREATE DATABASE otp OWNER otp;
CREATE DATABASE relay OWNER relay;
REVOKE CONNECT ON DATABASE otp, relay, postgres FROM PUBLIC;
SQL
