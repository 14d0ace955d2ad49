package cdc_test

import (
	"strings"
	"time"

	"github.com/chariot-giving/delta/internal/cdctest"
)

// said collects log lines.
type said chan string

func (s said) Write(line []byte) (int, error) {
	select {
	case s <- string(line):
	default:
	}
	return len(line), nil
}

// await returns the next line with a text, and skips others: a busy server may lose connections, which is logged too. It is empty if there is
// no such line in time.
func (s said) await(text string) string {
	for timeout := time.After(cdctest.Patience); ; {
		select {
		case line := <-s:
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			return ""
		}
	}
}
