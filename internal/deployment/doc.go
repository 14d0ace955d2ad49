// Package deployment tests the files with which Delta is deployed: docker-compose.yml, the Dockerfile, the Helm chart and the manifests of
// deploy. No engine and no cluster is needed: the files are validated against their specifications, and the command accepts the arguments in
// them.
package deployment
