#!/usr/bin/env bash
# Makes sure that the servers that the tests start are installed. On Debian as root it installs what is
# missing; elsewhere it says what to install. Kafka, which no system packages, comes from Maven's registry
# into .cache, and so do, from Go's, the schemas that the files for deployment are held against. No server is left running: each test starts its own, on a free port, in a folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

pom=tests/servers/kafka/pom.xml
kafka=.cache/kafka-$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$pom")

# What says how Compose files and Kubernetes' objects look, and what renders the latter where kubectl does not.
compose_spec=github.com/compose-spec/compose-go/v2@v2.16.2
kubernetes=k8s.io/kubernetes@v1.34.2
spinkube=github.com/spinkube/spin-operator@v0.4.0
keda=github.com/kedacore/keda/v2@v2.20.2
cloudnative_pg=github.com/cloudnative-pg/cloudnative-pg@v1.25.0
prometheus_operator=github.com/prometheus-operator/prometheus-operator@v0.85.0
kustomize=sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
modules=("$compose_spec" "$kubernetes" "$spinkube" "$keda" "$cloudnative_pg" "$prometheus_operator")
schemas=.cache/schemas-$(printf '%s\n' "${modules[@]}" | cksum | cut -d' ' -f1)

debian=() brew=()
# need PACKAGE-OF-DEBIAN WHAT-TO-RUN-ELSEWHERE COMMAND...: misses the package if the command fails.
need() {
  "${@:3}" >/dev/null 2>&1 || debian+=("$1") brew+=("$2")
}

has_aiosmtpd() { # as the harness looks for it
  /usr/bin/python3 -c 'import aiosmtpd' || python3 -c 'import aiosmtpd'
}

has_postgres() { # Debian puts its programs where no PATH leads
  ls /usr/lib/postgresql/*/bin/initdb || command -v initdb
}

has_prometheus() {
  command -v prometheus && command -v promtool
}

has_java() {
  local version
  version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
  [ "${version:-0}" -ge 17 ]
}

has_go() { # new enough for the modules that are fetched
  local version
  version=$(go version 2>/dev/null | sed -n 's/.* go1\.\([0-9]*\).*/\1/p')
  [ "${version:-0}" -ge 24 ]
}

renders() { # kubectl brings kustomize along, long an old one
  kubectl version --client --output json 2>/dev/null | grep -q '"kustomizeVersion": *"v[5-9]' ||
    [ -x ".cache/${kustomize##*@}/kustomize" ]
}

# Runs a command that nobody wants to hear of, unless it fails.
quietly() {
  local said
  said=$("$@" 2>&1) || {
    printf '%s\n' "$said" >&2
    return 1
  }
}

need postgresql "brew install postgresql" has_postgres
need redis-server "brew install redis" command -v redis-server
need kcat "brew install kcat" command -v kcat
need prometheus "brew install prometheus" has_prometheus
need openssl "brew install openssl" command -v openssl
need python3-aiosmtpd "python3 -m pip install aiosmtpd" has_aiosmtpd
need default-jre-headless "brew install openjdk" has_java
[ "$(uname)" != Linux ] || need valgrind "" command -v valgrind
{ [ -d "$schemas" ] && renders; } || need golang-go "brew install go" has_go
[ -d "$kafka/libs" ] || need maven "brew install maven" command -v mvn

install_missing() {
  # The packages would start servers of the system's: the tests do not need them.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get update && apt-get install --yes --no-install-recommends "${debian[@]}"
}

if [ ${#debian[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing for the tests: ${debian[*]}" >&2
    quietly install_missing
  else
    echo "The tests need: ${debian[*]}. On Debian: apt-get install ${debian[*]}. On macOS:" >&2
    printf '  %s\n' "${brew[@]}" >&2
    echo "Then run this again." >&2
    exit 1
  fi
fi

# Built in a folder aside and moved in place, so that a part is never taken for the whole.
mkdir -p .cache
aside=$(mktemp -d .cache/aside.XXXXXX)
trap 'rm -rf "$aside"' EXIT

if [ ! -d "$kafka/libs" ]; then
  echo "fetching Apache Kafka for the tests" >&2
  quietly mvn -q -B -f "$pom" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$PWD/$aside/libs"
  mkdir -p "$kafka"
  mv "$aside/libs" "$kafka/libs"
fi

# What Java has to load for a broker, ready for use: a start then takes two thirds of the time. The flags
# have to be those of the harness.
warm_up() {
  local java=(java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$PWD/$kafka/libs/*") broker ended=0
  local properties=$PWD/tests/servers/kafka/warm-up.properties
  cd "$aside"
  "${java[@]}" kafka.tools.StorageTool format --standalone -t AAAAAAAAAAAAAAAAAAAAAQ -c "$properties"
  "${java[@]}" -XX:ArchiveClassesAtExit=classes.jsa kafka.Kafka "$properties" >log 2>&1 &
  broker=$!
  for _ in $(seq 300); do
    grep -q 'Kafka Server started' log && break
    sleep 0.2
  done
  kill "$broker" || true
  wait "$broker" || ended=$?
  [ -s classes.jsa ] || { cat log; echo "the broker ended with $ended"; return 1; }
}

if [ ! -e "$kafka/classes.jsa" ]; then
  quietly warm_up
  mv "$aside/classes.jsa" "$kafka/classes.jsa"
fi

# fetch MODULE: where its files are.
fetch() {
  local said
  said=$(cd "$aside" && GOMODCACHE=$PWD/modules GOFLAGS=-modcacherw go mod download -json "$1") || {
    printf '%s\n' "$said" >&2
    return 1
  }
  sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p' <<<"$said"
}

# take MODULE FOLDER FILE...: copies those files of the module below its folder.
take() {
  local from to=$aside/schemas/$2 file
  from=$(fetch "$1")
  mkdir -p "$to"
  for file in "${@:3}"; do cp "$from/$file" "$to/" && chmod 644 "$to/${file##*/}"; done
}

if [ ! -d "$schemas" ] || ! renders; then
  has_go || {
    echo "The tests need Go 1.24 or newer, and this system's packages have an older one. Install it (https://go.dev/dl)," >&2
    echo "then run this again." >&2
    exit 1
  }
fi

if [ ! -d "$schemas" ]; then
  echo "fetching the schemas of Compose and Kubernetes for the tests" >&2
  take "$compose_spec" compose schema/compose-spec.json
  v3=api/openapi-spec/v3
  take "$kubernetes" kubernetes $v3/api__v1_openapi.json $v3/apis__apps__v1_openapi.json \
    $v3/apis__autoscaling__v2_openapi.json $v3/apis__networking.k8s.io__v1_openapi.json $v3/apis__policy__v1_openapi.json
  take "$spinkube" resources config/crd/bases/core.spinkube.dev_spinapps.yaml \
    config/crd/bases/core.spinkube.dev_spinappexecutors.yaml
  take "$keda" resources config/crd/bases/keda.sh_scaledobjects.yaml
  take "$cloudnative_pg" resources config/crd/bases/postgresql.cnpg.io_clusters.yaml \
    config/crd/bases/postgresql.cnpg.io_databases.yaml
  take "$prometheus_operator" resources example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml
  rm -rf .cache/schemas-*
  mv "$aside/schemas" "$schemas"
fi

if ! renders; then
  echo "building kustomize for the tests" >&2
  (cd "$aside" && GOBIN=$PWD GOMODCACHE=$PWD/modules GOFLAGS=-modcacherw quietly go install "$kustomize")
  mkdir -p ".cache/${kustomize##*@}"
  mv "$aside/kustomize" ".cache/${kustomize##*@}/kustomize"
fi
