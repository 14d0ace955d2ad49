package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseList(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		goproxy string
		want    string // the String of the list
		err     string
	}{
		{goproxy: "https://a.example", want: "https://a.example"},
		{goproxy: "https://a.example/", want: "https://a.example"},
		{goproxy: "https://a.example,http://b.example/go|direct", want: "https://a.example,http://b.example/go|direct"},
		{goproxy: " https://a.example , direct ", want: "https://a.example,direct"},
		{goproxy: ",,https://a.example||direct", want: "https://a.example|direct"},
		{goproxy: "a.example/go", want: "https://a.example/go"},
		{goproxy: "file:///srv/modules", want: "file:///srv/modules"},
		{goproxy: "direct", want: "direct"},
		{goproxy: "off", want: "off"},
		{goproxy: "off,https://a.example", want: "off"},
		{goproxy: "https://a.example,direct,not even looked at", want: "https://a.example,direct"},
		{goproxy: "https://me:secret@a.example", want: "https://me:xxxxx@a.example"},

		{goproxy: "", err: "GOPROXY names no proxy"},
		{goproxy: " , | ", err: "GOPROXY names no proxy"},
		{goproxy: "nonsense", err: `GOPROXY: "nonsense" is neither a URL nor one of the words direct and off`},
		{goproxy: "/srv/modules", err: `GOPROXY: "/srv/modules" is neither a URL nor one of the words direct and off`},
		{goproxy: "ftp://a.example", err: "GOPROXY: ftp://a.example: the scheme must be https, http or file"},
		{goproxy: "https:///go", err: "GOPROXY: https:///go: there is no host"},
		{goproxy: "file://host/srv", err: "GOPROXY: file://host/srv: a file URL has a path only, as in file:///srv/modules"},
		{goproxy: "https://me:secret@a.example:port", err: "GOPROXY: one of the proxies is not a valid URL"},
	} {
		t.Run(tt.goproxy, func(t *testing.T) {
			t.Parallel()
			list, err := ParseList(tt.goproxy)
			if tt.err != "" {
				require.EqualError(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, list.String())
		})
	}
}

func TestBest(t *testing.T) {
	t.Parallel()
	const commit = "v0.0.0-20240102030405-0123456789ab"
	for _, tt := range []struct {
		name     string
		versions []string
		want     string
	}{
		{"nothing", nil, ""},
		{"the highest, not the last", []string{"v1.10.0", "v1.9.0"}, "v1.10.0"},
		{"a release before a higher prerelease", []string{"v1.0.0", "v1.1.0-rc.1"}, "v1.0.0"},
		{"a prerelease where there is no release", []string{"v0.9.0-alpha", "v0.9.0-beta", commit}, "v0.9.0-beta"},
		{"a commit where there is nothing else", []string{commit}, commit},
		{"a release before a higher +incompatible one", []string{"v1.2.0", "v3.0.0+incompatible"}, "v1.2.0"},
		{"the highest +incompatible one", []string{"v2.0.0+incompatible", "v3.0.0+incompatible", "v4.0.0-rc.1+incompatible"}, "v3.0.0+incompatible"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, bestVersion(tt.versions))
		})
	}
}

func TestParseVersions(t *testing.T) {
	t.Parallel()
	body := []byte("v1.0.0\r\nv1.1.0 2024-01-01T00:00:00Z\n\nv2.0.0\nv3.0.0+incompatible\nv1.2\nnonsense\n<html>\nv0.0.0-20240102030405-0123456789ab")
	require.Equal(t, []string{"v1.0.0", "v1.1.0", "v3.0.0+incompatible", "v0.0.0-20240102030405-0123456789ab"},
		parseVersions(body, "example.com/m"))
	require.Equal(t, []string{"v2.0.0"}, parseVersions(body, "example.com/m/v2"))
	require.Empty(t, parseVersions(body, "gopkg.in/m")) // not a path that a module can have
}

func TestNewer(t *testing.T) {
	t.Parallel()
	list := []string{"v1.0.0", "v1.1.0", "v1.2.0-rc.1", "v1.2.0", "v1.2.1-0.20240102030405-0123456789ab", "v1.3.0-beta"}
	require.Equal(t, 2, countNewer(list, "v1.0.0", "v1.2.0"))
	require.Equal(t, 0, countNewer(list, "v1.2.0", "v1.2.0"))
	require.Equal(t, 0, countNewer(list, "v1.3.0-beta", "v1.2.0"), "ahead of the latest release")
	require.Equal(t, 1, countNewer(nil, "v1.0.0", "v1.2.0"), "the latest counts, listed or not")
	require.Equal(t, 1, countNewer(list, "v1.1.1-0.20240101000000-0123456789ab", "v1.2.0"))
	require.Equal(t, 0, countNewer(nil, "v0.0.0-20240101000000-0123456789ab", "v0.0.0-20240102030405-0123456789ab"), "commits are not counted")
}
