package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// ticksPerSecond is the unit of processor time in Linux, independent of the kernel's clock (proc(5), sysconf(_SC_CLK_TCK)).
const ticksPerSecond = 100

// processTimes has fields of /proc/PID/stat.
type processTimes struct {
	pid, parent int
	cpu         time.Duration
}

// parseStat parses the fields after the command's name, which may contain spaces and parentheses.
func parseStat(content []byte) (p processTimes, err error) {
	if p.pid, err = strconv.Atoi(string(bytes.Fields(content)[0])); err != nil {
		return p, err
	}
	fields := bytes.Fields(content[bytes.LastIndexByte(content, ')')+1:])
	const parent, user, system = 1, 11, 12
	if len(fields) <= system {
		return p, fmt.Errorf("%q is too short", content)
	}
	if p.parent, err = strconv.Atoi(string(fields[parent])); err != nil {
		return p, err
	}
	for _, i := range []int{user, system} {
		ticks, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return p, err
		}
		p.cpu += time.Duration(ticks) * time.Second / ticksPerSecond
	}
	return p, nil
}
