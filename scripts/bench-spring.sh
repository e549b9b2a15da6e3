#!/usr/bin/env bash
# Builds the peer of `make bench` that is written with Spring Boot.
set -euo pipefail
cd "$(dirname "$0")/../bench/peers/spring"
[ ! target/otp-peer.jar -nt pom.xml ] || [ -n "$(find src -newer target/otp-peer.jar -type f)" ] || exit 0
echo "building the Spring Boot peer" >&2
mvn -q -B package -DskipTests
