package buildinfo

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVersionNamesVersionCommitAndDate(t *testing.T) {
	t.Parallel()
	info := &debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: "v1.2.0"}}
	platform := []debug.BuildSetting{{Key: "GOOS", Value: "linux"}, {Key: "GOARCH", Value: "arm64"}}
	info.Settings = platform
	require.Equal(t, "v1.2.0 go1.26.8 linux/arm64", format(info), "of go install, which knows no commit")
	info.Settings = append(platform, debug.BuildSetting{Key: "vcs.revision", Value: "7f7e4674e6e9d323cf6194eca60444459e0541e8"},
		debug.BuildSetting{Key: "vcs.time", Value: "2026-11-29T09:12:17Z"}, debug.BuildSetting{Key: "vcs.modified", Value: "false"})
	require.Equal(t, "v1.2.0 (commit 7f7e4674e6e9, 2026-11-29T09:12:17Z) go1.26.8 linux/arm64", format(info))
	info.Main.Version = ""
	info.Settings[len(info.Settings)-1].Value = "true"
	require.Equal(t, "(unknown) (commit 7f7e4674e6e9, 2026-11-29T09:12:17Z, modified) go1.26.8 linux/arm64", format(info))
	require.Contains(t, Version(), runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
}
