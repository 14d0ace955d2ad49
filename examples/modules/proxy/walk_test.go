package proxy

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWalk checks the order in which proxies are asked.
func TestWalk(t *testing.T) {
	t.Parallel()
	has := map[string]string{base + "@latest": infoJSON("v1.0.0", jan)}
	servers := map[string]map[string]string{
		"HAS": has, "404": nil, "410": {"*": "410"}, "403": {"*": "403"}, "500": {"*": "500"}, "GARBAGE": {"*": "<html>"},
	}
	for _, tt := range []struct {
		list string
		is   error
		text string // of the error; empty for an answer
	}{
		{list: "HAS,direct"},
		{list: "404,HAS"},
		{list: "410,HAS"},
		{list: "404|HAS"},
		{list: "404,410,404,HAS,direct"},
		{list: "500|HAS"},
		{list: "403|HAS"},
		{list: "GARBAGE|HAS"},
		{list: "DEAD|HAS"},
		{list: "500|404,HAS"},
		{list: "500,HAS", text: "500 Internal Server Error"},
		{list: "403,HAS", is: ErrForbidden, text: "403 Forbidden"},
		{list: "GARBAGE,HAS", text: "not the JSON"},
		{list: "DEAD,HAS", text: "connection refused"},
		{list: "404,410", is: ErrNotExist, text: "404 Not Found"},
		{list: "404,500", text: "500 Internal Server Error"},
		{list: "500|404", text: "500 Internal Server Error"}, // the failing proxy may have the module
		{list: "404,direct", is: ErrNotExist, text: "(then comes direct, which means asking version control systems: this example does not)"},
		{list: "404,off,HAS", is: ErrNotExist, text: "(then comes off: nothing may be looked up)"},
		{list: "500|direct", text: "500 Internal Server Error (then comes direct"},
		{list: "direct", is: ErrNotAsked, text: "GOPROXY has no proxy to ask: it is direct, which means asking version control systems: this example does not"},
		{list: "off", is: ErrNotAsked, text: "GOPROXY has no proxy to ask: it is off: nothing may be looked up"},
	} {
		t.Run(tt.list, func(t *testing.T) {
			t.Parallel()
			list := strings.ReplaceAll(tt.list, "DEAD", "http://127.0.0.1:1")
			for name, answers := range servers {
				if strings.Contains(tt.list, name) {
					// Only names are replaced: an address has digits as well.
					list = regexp.MustCompile(`(^|[,|])`+name+`\b`).ReplaceAllString(list, "${1}"+startServer(t, answers).URL)
				}
			}
			got, err := newClient(t, Settings{GOPROXY: list}).Ask(t.Context(), modPath, "v1.0.0")
			if tt.text == "" {
				require.NoError(t, err)
				require.Equal(t, "v1.0.0", got.Latest.Version)
				return
			}
			require.ErrorContains(t, err, tt.text)
			if tt.is != nil {
				require.ErrorIs(t, err, tt.is)
			} else {
				require.NotErrorIs(t, err, ErrNotExist)
			}
		})
	}
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	s := startServer(t, map[string]string{"*": infoJSON("v1.0.0", jan)})
	c := newClient(t, Settings{GOPROXY: s.URL, GONOPROXY: "*.corp.example,example.com/secret"})
	for private, paths := range map[bool][]string{
		true:  {"git.corp.example/x", "example.com/secret", "example.com/secret/deep/v2"},
		false: {"corp.example/x", "example.com/secrets"},
	} {
		for _, path := range paths {
			_, err := c.Ask(t.Context(), path, "v1.0.0")
			if private {
				require.ErrorIs(t, err, ErrPrivate, path)
				require.ErrorContains(t, err, "*.corp.example,example.com/secret", path)
			} else {
				require.NoError(t, err, path)
			}
		}
	}
	for _, asked := range s.requestedPaths() {
		require.NotContains(t, asked, "secret/", "a private path must not leave the machine")
		require.NotContains(t, asked, "git.corp")
	}
}
