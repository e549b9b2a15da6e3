#!/usr/bin/env bash
# Fresh keys, tokens and passwords for a deployment: nothing that is shipped works without them.
#
#   scripts/env.sh            writes .env, which docker-compose.yml reads
#   scripts/env.sh --secret   prints the Secret that deploy/ refers to, for kubectl create -f -
#
# Both say the API keys once; the service itself only knows their hashes. With --secret, what other systems have
# given out is taken from the environment: REDIS_PASSWORD, POSTGRES_PASSWORD, POSTGRES_CA (PEM), RELAY_DATABASE_URL
# and KAFKA_SASL_PASSWORD.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

command -v openssl >/dev/null || {
  say "The keys are made by openssl, and there is none. Install it (Debian: apt-get install openssl)."
  exit 1
}

key() { openssl rand -base64 32; }
word() { openssl rand -hex 32; }
hashed() { printf %s "$1" | openssl dgst -sha256 -r | cut -d' ' -f1; }

# One by one, so that none can be empty: a command that fails ends the script here, and not inside a text.
encryption_keys="k1:$(key)"
event_keys="k1:$(key)"
index_key=$(key)
api_key=$(word)
admin_key=$(word)
relay_token=$(word)
redis_password=$(word)
postgres_password=$(word)
otp_database_password=$(word)
relay_database_password=$(word)
api_keys="shop:send+verify:$(hashed "$api_key"),admin:admin:$(hashed "$admin_key")"

# In Kubernetes the keys go into a Secret, line by line, as JSON strings, which YAML takes as they are.
quoted() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//$'\n'/\\n}"
}

secret() {
  local name
  for name in REDIS_PASSWORD POSTGRES_PASSWORD RELAY_DATABASE_URL KAFKA_SASL_PASSWORD; do
    [ -n "${!name:-}" ] || say "$name is not set; deploy/README.md says where that is right."
  done
  cat <<SECRET
apiVersion: v1
kind: Secret
metadata:
  name: spin-otp
  namespace: ${NAMESPACE:-spin-otp}
type: Opaque
stringData:
  encryption-keys: $(quoted "$encryption_keys")
  event-keys: $(quoted "$event_keys")
  index-key: $(quoted "$index_key")
  api-keys: $(quoted "$api_keys")
  relay-token: $(quoted "$relay_token")
  redis-password: $(quoted "${REDIS_PASSWORD:-}")
  postgres-password: $(quoted "${POSTGRES_PASSWORD:-}")
  postgres-ca: $(quoted "${POSTGRES_CA:-}")
  kafka-sasl-password: $(quoted "${KAFKA_SASL_PASSWORD:-}")
SECRET
  # Absent rather than empty: a relay that is meant to have it does not start then. With an empty one each would
  # keep a ledger of its own, and send what the others send.
  [ -z "${RELAY_DATABASE_URL:-}" ] || printf '  relay-database-url: %s\n' "$(quoted "$RELAY_DATABASE_URL")"
}

environment() {
  cat <<ENV
# Written by scripts/env.sh. Keep it: without these keys nobody can read what is stored.
OTP_ENCRYPTION_KEYS=$encryption_keys
OTP_EVENT_KEYS=$event_keys
OTP_INDEX_KEY=$index_key
OTP_API_KEYS=$api_keys
RELAY_TOKEN=$relay_token
REDIS_PASSWORD=$redis_password
POSTGRES_PASSWORD=$postgres_password
OTP_DATABASE_PASSWORD=$otp_database_password
RELAY_DATABASE_PASSWORD=$relay_database_password
# Countries that codes are sent to, such as US,CA, and how many in all, as requests/seconds. * and off are for trying it out.
OTP_ALLOWED_COUNTRIES=*
OTP_GLOBAL_RATE_LIMIT=off
ENV
}

case "${1:-}" in
  --secret)
    secret
    ;;
  '')
    # Beside its place first, so that it is there whole or not at all; ln takes no place that is taken.
    umask 077
    written=$(mktemp .env.XXXXXX)
    trap 'rm -f "$written"' EXIT
    environment >"$written"
    ln "$written" .env 2>/dev/null || {
      say "There is a .env already, and its keys may be in use: nothing was changed. Move it away to have a new one."
      exit 1
    }
    ;;
  *)
    say "$1 is none of its options: scripts/env.sh, or scripts/env.sh --secret"
    exit 2
    ;;
esac

cat >&2 <<KEYS

API keys, which are shown this once and stored nowhere. To send and check codes:
  $api_key
To erase users:
  $admin_key
KEYS
[ -n "${1:-}" ] || cat >&2 <<NEXT

.env is written. Next:
  docker compose up --build --wait
  curl -H 'Authorization: Bearer $api_key' -d '{"mobileNumber":"+14155550123"}' http://127.0.0.1:3000/generate-otp

Codes reach nobody until deploy/compose/delivery.toml says who delivers them.
NEXT
