# Two images: `app` has the service on Spin, `relay` has the relay. docker-compose.yml builds both;
# `docker build --target relay .` builds one.
#
# What comes from elsewhere is pinned by version. All of it stands on Debian 12, so that what `build` links
# against is there in both images.

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .

FROM build AS component
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    make component \
 && cp target/wasm32-wasip2/component/otp.wasm /otp.wasm

FROM build AS native
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    make relay \
 && cp target/release/relay /usr/local/bin/relay \
 && mkdir /state

FROM ghcr.io/spinframework/spin:v4.1.0 AS app
WORKDIR /app
COPY spin.toml ./
COPY --from=component /otp.wasm target/wasm32-wasip2/component/otp.wasm
# Only to ask whether the service is ready: there is no curl here.
COPY --from=native /usr/local/bin/relay /usr/local/bin/relay
# Spin looks for caches and plugins at home, and nobody has one here.
ENV HOME=/tmp
USER 65532:65532
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["/usr/local/bin/relay", "check", "--url", "http://127.0.0.1:3000/readyz", "--deadline", "4"]
ENTRYPOINT ["/usr/local/bin/spin"]
# Without a state folder nothing is written: the state is in Postgres, the log goes to standard error.
CMD ["up", "--from", "/app/spin.toml", "--listen", "0.0.0.0:3000", "--state-dir", "", "--disable-cache"]

FROM debian:12.14-slim AS relay
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=native /usr/local/bin/relay /usr/local/bin/relay
# A volume that is mounted here belongs to the relay, too.
COPY --from=native --chown=65532:65532 /state /var/lib/relay
ENV RELAY_LISTEN=0.0.0.0:3100 RELAY_STATE_DIR=/var/lib/relay
USER 65532:65532
EXPOSE 3100
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["/usr/local/bin/relay", "check", "--deadline", "4"]
ENTRYPOINT ["/usr/local/bin/relay"]
CMD ["serve"]
