#!/usr/bin/env bash
# Serves on LISTEN with HOST (spin or embedded), keeps the database in STATE_DIR, and says what to try.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${LISTEN:=127.0.0.1:3000}" "${STATE_DIR:=.spin}" "${HOST:=embedded}"
url=http://$LISTEN

# redis://[user[:password]@]host[:port][/database]: Spin wants the place and the credentials apart.
if [ -n "${REDIS_URL:-}" ]; then
  decoded() {
    local text=${1//\\/\\\\}
    printf '%b' "${text//%/\\x}"
  }
  rest=${REDIS_URL#redis://}
  [ "$rest" != "$REDIS_URL" ] || {
    echo "REDIS_URL must be redis://[user:password@]host:port[/database]." >&2
    exit 1
  }
  case "$rest" in */*) export SPIN_VARIABLE_REDIS_DATABASE=${rest##*/} rest=${rest%/*} ;; esac
  case "$rest" in
    *@*)
      credentials=${rest%@*} rest=${rest##*@}
      SPIN_VARIABLE_REDIS_USERNAME=$(decoded "${credentials%%:*}")
      case "$credentials" in *:*) SPIN_VARIABLE_REDIS_PASSWORD=$(decoded "${credentials#*:}") ;; esac
      export SPIN_VARIABLE_REDIS_USERNAME SPIN_VARIABLE_REDIS_PASSWORD
      ;;
  esac
  # The colons of an IPv6 address stand inside brackets.
  case "${rest##*]}" in *:*) ;; *) rest=$rest:6379 ;; esac
  export SPIN_VARIABLE_REDIS_ENDPOINT=redis://$rest
fi

case "$HOST" in
  embedded) serve=(target/release/spin-otp-host --listen "$LISTEN" --state-dir "$STATE_DIR") ;;
  spin)
    command -v spin >/dev/null || {
      echo "HOST=spin, but there is no spin on the PATH. Install it (https://spinframework.dev), or use HOST=embedded." >&2
      exit 1
    }
    serve=(spin up --listen "$LISTEN" --state-dir "$STATE_DIR")
    ;;
  *)
    echo "HOST is $HOST; it is either spin or embedded." >&2
    exit 1
    ;;
esac

host=${LISTEN%:*} host=${host#[} host=${host%]}
answers() { (exec 3<>"/dev/tcp/$host/${LISTEN##*:}") 2>/dev/null; }

# Says what to try as soon as the service listens, unless something else did so before.
if ! answers; then
  (
    for _ in $(seq 300); do
      if answers; then
        # What is wrong with the configuration is said now, and not at somebody's first request.
        exec 3<>"/dev/tcp/$host/${LISTEN##*:}"
        printf 'GET /readyz HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n' "$LISTEN" >&3
        ready=$(cat <&3)
        case "$ready" in
          *'"code":"misconfigured"'*)
            printf '\nNot ready: %s\n' "$(sed -n 's/.*"detail":"\([^"]*\)".*/\1/p' <<<"$ready")"
            exit
            ;;
        esac
        cat <<TRY

Try it:
  curl -d '{"mobileNumber":"+14155550123"}' $url/generate-otp
  curl -d '{"mobileNumber":"+14155550123"}' $url/resend-otp
  curl -d '{"mobileNumber":"+14155550123","otp":"the code"}' $url/verify-otp

Ctrl-C stops it.
TRY
        exit
      fi
      # The service ended instead.
      kill -0 $$ 2>/dev/null || exit
      sleep 0.1
    done
  ) &
fi

exec "${serve[@]}"
