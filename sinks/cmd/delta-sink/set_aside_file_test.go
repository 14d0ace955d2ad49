package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

func TestSetAsideAfterATruncatedLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "aside.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(`{"at":"20`), 0o600))
	a := &setAsideFile{path: path, relay: "r"}
	require.NoError(t, a.appendMessage(t.Context(), sinks.Message{ID: "1", Body: []byte{0xff}}, io.ErrUnexpectedEOF))
	require.NoError(t, a.appendMessage(t.Context(), sinks.Message{ID: "2", Body: []byte(`{"a": 1}`)}, io.ErrUnexpectedEOF))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	require.Len(t, lines, 3)
	var first, second setAsideLine
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &first))
	require.NoError(t, json.Unmarshal([]byte(lines[2]), &second))
	require.Equal(t, "1", first.ID)
	require.Equal(t, []byte{0xff}, first.BodyBase64)
	require.JSONEq(t, `{"a": 1}`, string(second.Body))
}
