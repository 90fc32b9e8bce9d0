# syntax=docker/dockerfile:1
# The operator's program in an image of its own. From the repository's folder:
#
#     docker build -f examples/deploy/aggregator.Dockerfile -t fedlora-aggregator .
#
# Base images are named by tag. Pin them by digest where you build: FROM NAME:TAG@sha256:...
FROM rust:1.95.0-bookworm AS build
# aws-lc-rs is built with CMake.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The image has the toolchain; formatter and linter need not be fetched.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release -p fedlora-aggregator --features database \
    && install -D -s target/release/fedlora-aggregator /out/usr/bin/fedlora-aggregator \
    && mkdir -p /out/usr/share/doc/fedlora-aggregator \
    && cp LICENSE-MIT LICENSE-APACHE NOTICE /out/usr/share/doc/fedlora-aggregator/ \
    && .ci/third-party fedlora-aggregator fedlora-aggregator database \
        > /out/usr/share/doc/fedlora-aggregator/third-party.txt \
    && install -d -m 700 -o 65532 -g 65532 /out/var/lib/fedlora-aggregator

# With a shell, for steps that are done once: makes the federation and its invitations.
FROM debian:bookworm-slim AS setup
COPY --from=build /out /
COPY --chmod=755 examples/deploy/setup/operator.sh /usr/local/bin/setup
ENV FEDLORA_DIR=/var/lib/fedlora-aggregator
USER 65532:65532
HEALTHCHECK NONE
ENTRYPOINT ["/usr/local/bin/setup"]

# What serves: no shell, no package manager, no other program.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="fedlora-aggregator" \
    org.opencontainers.image.description="Aggregator of fedlora" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out /
ENV FEDLORA_DIR=/var/lib/fedlora-aggregator NO_COLOR=1
USER 65532:65532
# Members on the first port, joining on the second, each by UDP and, where that is blocked, TCP.
EXPOSE 4433/udp 4433/tcp 4434/udp 4434/tcp 9464/tcp
# Whether the directory can be read. `/healthz` and `/readyz` say more to who can ask by HTTP.
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 \
    CMD ["/usr/bin/fedlora-aggregator", "--quiet", "status"]
ENTRYPOINT ["/usr/bin/fedlora-aggregator"]
CMD ["serve", "--metrics", "0.0.0.0:9464"]
