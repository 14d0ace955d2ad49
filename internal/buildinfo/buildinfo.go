// Package buildinfo names the version of a program: `delta --version` and `delta-sink --version`.
package buildinfo

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// Version describes the running program: its version, the commit and its time where it was built in a checkout, the compiler and the platform.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return format(info)
}

func format(info *debug.BuildInfo) string {
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	version := info.Main.Version
	if version == "" {
		version = "(unknown)"
	}
	var b strings.Builder
	b.WriteString(version)
	if commit := settings["vcs.revision"]; commit != "" {
		fmt.Fprintf(&b, " (commit %.12s, %s", commit, settings["vcs.time"])
		if settings["vcs.modified"] == "true" {
			b.WriteString(", modified")
		}
		b.WriteString(")")
	}
	fmt.Fprintf(&b, " %s %s/%s", info.GoVersion, settings["GOOS"], settings["GOARCH"])
	return b.String()
}
