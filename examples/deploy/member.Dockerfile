# syntax=docker/dockerfile:1
# A member's program in an image of its own. From the repository's folder:
#
#     docker build -f examples/deploy/member.Dockerfile -t fedlora .
#
# For GPUs add `--build-arg FEATURES=cuda` and `--build-arg RUNTIME=` with an image of the same Debian
# or Ubuntu release or a later one that holds NVRTC and CUDA's headers.
# Base images are named by tag. Pin them by digest where you build: FROM NAME:TAG@sha256:...
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

FROM rust:1.95.0-bookworm AS build
ARG FEATURES=
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
    cargo build --locked --release -p fedlora-client --features "$FEATURES" \
    && install -D -s target/release/fedlora /out/usr/bin/fedlora \
    && mkdir -p /out/usr/share/doc/fedlora \
    && cp LICENSE-MIT LICENSE-APACHE NOTICE /out/usr/share/doc/fedlora/ \
    && .ci/third-party fedlora-client fedlora "$FEATURES" > /out/usr/share/doc/fedlora/third-party.txt \
    && install -d -m 700 -o 65532 -g 65532 /out/var/lib/fedlora /out/var/cache/fedlora

# With a shell, for steps that are done once: joins with the invitation that it is given.
FROM debian:bookworm-slim AS setup
COPY --from=build /out /
COPY --chmod=755 examples/deploy/setup/member.sh /usr/local/bin/setup
ENV FEDLORA_DIR=/var/lib/fedlora
USER 65532:65532
HEALTHCHECK NONE
ENTRYPOINT ["/usr/local/bin/setup"]

# What takes part: no shell, no package manager, no other program.
# hadolint ignore=DL3006
FROM ${RUNTIME}
LABEL org.opencontainers.image.title="fedlora" \
    org.opencontainers.image.description="A member's program of fedlora" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out /
# Bases of the hub and compiled kernels lie in the cache. Set HF_HUB_OFFLINE=0 to fetch some.
ENV FEDLORA_DIR=/var/lib/fedlora XDG_CACHE_HOME=/var/cache/fedlora \
    HF_HOME=/var/cache/fedlora/huggingface HF_HUB_OFFLINE=1 NO_COLOR=1
USER 65532:65532
# Whether what this member took part in still verifies.
HEALTHCHECK --interval=5m --timeout=60s --start-period=30s --retries=3 \
    CMD ["/usr/bin/fedlora", "--quiet", "runs"]
ENTRYPOINT ["/usr/bin/fedlora"]
CMD ["agent", "--base", "/base", "--data", "/records"]
