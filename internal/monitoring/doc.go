// Package monitoring tests what is in deploy with the rule engine, parser and linter of Prometheus, against what real servers expose.
// It is a module of its own because Prometheus brings hundreds of packages that users of Delta must not get.
package monitoring
