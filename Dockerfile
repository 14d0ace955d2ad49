# syntax=docker/dockerfile:1
# Images of the commands delta and delta-sink, and of the quickstart for docker-compose.yml.
#
#   docker build -t delta .
#   docker buildx build --platform linux/amd64,linux/arm64 -t delta .
#
# The compiler runs on the platform of the builder and cross-compiles, because emulating the target takes ten times as long.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
ENV CGO_ENABLED=0
COPY . .
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    export GOOS="$TARGETOS" GOARCH="$TARGETARCH" GOFLAGS="-trimpath -ldflags=-s" && \
    go build -o /out/delta ./cmd/delta && \
    go build -o /out/quickstart ./examples/quickstart && \
    go -C sinks/cmd/delta-sink build -o /out/delta-sink .

# No shell and no package manager; certificates and time zones are there. Its user has the id 65532.
FROM gcr.io/distroless/static-debian12:nonroot AS base

# The client that docker-compose.yml runs as an example: put your own program in its place.
FROM base AS example
COPY --from=build /out/quickstart /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/quickstart"]

# The image of a release has the binaries of the release, which goreleaser puts beside this file.
FROM base AS release
ARG TARGETPLATFORM
COPY $TARGETPLATFORM/delta $TARGETPLATFORM/delta-sink /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/delta"]

FROM base AS delta
COPY --from=build /out/delta /out/delta-sink /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/delta"]
