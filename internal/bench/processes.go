package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// ticksPerSecond is what Linux counts processor time in, whatever the kernel's own clock is (proc(5), sysconf(_SC_CLK_TCK)).
const ticksPerSecond = 100

// process is what /proc/PID/stat tells.
type process struct {
	pid, parent int
	cpu         time.Duration
}

// parseStat reads the fields that follow the command's name, which may have spaces and parentheses in it.
func parseStat(content []byte) (p process, err error) {
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
