#!/usr/bin/env bash
# Serves on LISTEN with HOST (spin or embedded), with a relay on RELAY_LISTEN beside it, keeps all state in
# STATE_DIR, and says what to try. Ctrl-C stops all of it; so does the end of one part.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${LISTEN:=127.0.0.1:3000}" "${STATE_DIR:=.spin}" "${HOST:=embedded}" "${RELAY_LISTEN:=127.0.0.1:3100}"
# here HOST:PORT: how this machine reaches what listens there, also where it listens everywhere.
here() {
  case "$1" in
    0.0.0.0:*) echo "127.0.0.1:${1##*:}" ;;
    '[::]:'*) echo "[::1]:${1##*:}" ;;
    *) echo "$1" ;;
  esac
}
service=$(here "$LISTEN")
url=http://$service
relay_url=http://$(here "$RELAY_LISTEN")

decoded() {
  local text=${1//\\/\\\\}
  printf '%b' "${text//%/\\x}"
}

# apart NAME USER PORT URL: scheme://[user[:password]@]host[:port][/database]. Spin wants the place and the
# credentials apart, in variables that begin with NAME.
apart() {
  local name=SPIN_VARIABLE_$1 scheme=${4%%://*} rest=${4#*://} credentials
  case "$rest" in */*) export "${name}_DATABASE=${rest##*/}" rest="${rest%/*}" ;; esac
  case "$rest" in
    *@*)
      credentials=${rest%@*} rest=${rest##*@}
      export "${name}_$2=$(decoded "${credentials%%:*}")"
      case "$credentials" in *:*) export "${name}_PASSWORD=$(decoded "${credentials#*:}")" ;; esac
      ;;
  esac
  # The colons of an IPv6 address stand inside brackets.
  case "${rest##*]}" in *:*) ;; *) rest=$rest:$3 ;; esac
  export "${name}_ENDPOINT=$scheme://$rest"
}

case "${REDIS_URL:-}" in
  '') ;;
  redis://*) apart REDIS USERNAME 6379 "$REDIS_URL" ;;
  *)
    echo "REDIS_URL must be redis://[user:password@]host[:port][/database]." >&2
    exit 1
    ;;
esac
case "${POSTGRES_URL:-}" in
  '') ;;
  *\?*)
    echo "POSTGRES_URL takes no parameters; TLS is set by SPIN_VARIABLE_POSTGRES_TLS and SPIN_VARIABLE_POSTGRES_CA." >&2
    exit 1
    ;;
  postgres://* | postgresql://*) apart POSTGRES USER 5432 "$POSTGRES_URL" ;;
  *)
    echo "POSTGRES_URL must be postgres://[user:password@]host[:port][/database]." >&2
    exit 1
    ;;
esac

case "$HOST" in
  embedded) serve=(target/release/spin-otp-host --listen "$LISTEN" --state-dir "$STATE_DIR") ;;
  spin)
    command -v spin >/dev/null || {
      echo "HOST=spin, but there is no spin on the PATH. Install it (https://spinframework.dev), or use HOST=embedded." >&2
      exit 1
    }
    # The component speaks WASI 0.3 as it became final.
    version=$(spin --version 2>/dev/null | grep -Eo '[0-9]+\.[0-9]+' | head -n 1 || true)
    if [ "$(printf '%s\n4.1\n' "${version:-0}" | sort -V | head -n 1)" != 4.1 ]; then
      echo "The spin on the PATH is ${version:-of no version that it tells}, and 4.1 is the oldest that runs this. Update it" \
        "(https://spinframework.dev), or use HOST=embedded." >&2
      exit 1
    fi
    serve=(spin up --listen "$LISTEN" --state-dir "$STATE_DIR")
    ;;
  *)
    echo "HOST is $HOST; it is either spin or embedded." >&2
    exit 1
    ;;
esac

# Whoever has a relay elsewhere says so, and starts none here.
relay=()
if [ -z "${SPIN_VARIABLE_RELAY_URL:-}" ]; then
  relay=(target/release/relay serve)
  # The two know each other by a token that nobody else has to know.
  : "${RELAY_TOKEN:=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')}"
  : "${RELAY_STATE_DIR:=$STATE_DIR/relay}" "${RELAY_COMPONENT_URL:=$url}" "${RELAY_LOG_FORMAT:=text}"
  # Only what a host that was killed has left waits for it.
  : "${RELAY_FLUSH_SECONDS:=30}"
  # Codes are opened with the keys that seal them, and events checked with those that sign them; the host reads .env,
  # too.
  for name in ENCRYPTION_KEYS EVENT_KEYS; do
    relays=RELAY_$name components=SPIN_VARIABLE_$name
    [ -z "${!relays:-}" ] || continue
    keys=${!components:-}
    if [ -z "$keys" ] && [ -r .env ]; then
      keys=$(sed -n "s/^\(export \)\{0,1\}$components=//p" .env | tail -n 1 | tr -d "\"'")
    fi
    printf -v "$relays" %s "$keys"
  done
  export RELAY_LISTEN RELAY_TOKEN RELAY_STATE_DIR RELAY_COMPONENT_URL RELAY_LOG_FORMAT RELAY_ENCRYPTION_KEYS
  export RELAY_EVENT_KEYS RELAY_FLUSH_SECONDS
  export SPIN_VARIABLE_RELAY_URL=$relay_url SPIN_VARIABLE_RELAY_TOKEN=$RELAY_TOKEN
fi

# answers HOST:PORT
answers() {
  local host=${1%:*}
  host=${host#[} host=${host%]}
  (exec 3<>"/dev/tcp/$host/${1##*:}") 2>/dev/null
}

# ask HOST:PORT PATH
ask() {
  local host=${1%:*}
  host=${host#[} host=${host%]}
  exec 3<>"/dev/tcp/$host/${1##*:}"
  printf 'GET %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n' "$2" "$1" >&3
  cat <&3
  exec 3>&-
}

# Says what to try as soon as the service listens.
try_it() {
  local ready
  for _ in $(seq 300); do
    if answers "$service"; then
      # What is wrong with the configuration is said now, and not at somebody's first request.
      ready=$(ask "$service" /readyz)
      case "$ready" in
        *'"code":"misconfigured"'*)
          printf '\nNot ready: %s\n' "$(sed -n 's/.*"detail":"\([^"]*\)".*/\1/p' <<<"$ready")"
          return
          ;;
      esac
      cat <<TRY

Try it:
  curl -d '{"mobileNumber":"+14155550123"}' $url/generate-otp
  curl -d '{"mobileNumber":"+14155550123"}' $url/resend-otp
  curl -d '{"mobileNumber":"+14155550123","otp":"the code"}' $url/verify-otp
TRY
      [ ${#relay[@]} -eq 0 ] || [ -n "${RELAY_DELIVERY_FILE:-}" ] || cat <<TRY
See it arrive:
  curl '$relay_url/inbox?to=+14155550123&wait=5'
TRY
      printf '\nCtrl-C stops it.\n'
      return
    fi
    # The service ended instead.
    kill -0 $$ 2>/dev/null || return
    sleep 0.1
  done
}

names=() pids=() ending=
start() {
  local name=$1
  shift
  "$@" &
  names+=("$name") pids+=("$!")
}
end() {
  ending=yes
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
}
running() {
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then return 0; fi
  done
  return 1
}
trap end INT TERM

# Something that listens there already would answer in its place.
hint=
if ! answers "$service"; then
  try_it &
  hint=$!
fi
[ ${#relay[@]} -eq 0 ] || start relay "${relay[@]}"
start service "${serve[@]}"

status=0
while [ -z "$ending" ]; do
  for index in "${!pids[@]}"; do
    if ! kill -0 "${pids[index]}" 2>/dev/null; then
      wait "${pids[index]}" || status=$?
      # Where this script may not hear Ctrl-C, both parts still do, and end in peace.
      [ "$status" -ne 0 ] || sleep 1 || true
      [ "$status" -ne 0 ] || running || ending=yes
      [ -n "$ending" ] || {
        echo "The ${names[index]} ended (exit status $status); the rest is stopped." >&2
        # That one part ends by itself is a failure, whatever it says.
        [ "$status" -ne 0 ] || status=1
        end
      }
      break
    fi
  done
  # Not in one piece, so that a signal is heard soon.
  [ -n "$ending" ] || sleep 0.2 || true
done
[ -z "$hint" ] || kill "$hint" 2>/dev/null || true
for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
exit "$status"
