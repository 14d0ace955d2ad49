//go:build !linux

package stack

func setDeathSignals(bool) {}
