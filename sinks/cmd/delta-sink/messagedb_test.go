//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks/category"
)

// Two processes relay a category into another one. One is killed while it works, again and again, and the other takes over: the target has
// each message once, and those of a stream in order. Messages that the target refuses permanently are set aside, and no other message waits
// for them.
func TestACategoryGetsEachMessageDespiteKills(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	require.NoError(t, messagedb.Migrate(t.Context(), d.Pool, ""))
	store, err := messagedb.NewClient(d.Pool, nil)
	require.NoError(t, err)
	file := writeFile(t, `relays:
  - name: copy
    source: {messagedb: {database_url: "`+urlOf(d)+`", category: account}}
    sink: {messagedb: {database_url: "`+urlOf(d)+`", category: copy}}
    undeliverable: {policy: set_aside, file: ASIDEFILE}
    limits: {batch_size: 10, confirm_interval: 50ms}
`)
	const streams, block, kills = 7, 210, 2
	written := 0
	tooLong := messagedb.StreamName("account-" + strings.Repeat("k", messagedb.MaxNameBytes-len("account-")))
	change := func() {
		_, err := store.WriteMessage(t.Context(), tooLong, messagedb.ProposedMessage{Type: "Opened", Data: messagedb.NoData}, messagedb.AnyVersion)
		require.NoError(t, err)
		for range block {
			_, err := store.WriteMessage(t.Context(), messagedb.StreamName(fmt.Sprintf("account-%d", written%streams)),
				messagedb.ProposedMessage{Type: "Opened", Data: map[string]int{"n": written}}, messagedb.AnyVersion)
			require.NoError(t, err)
			written++
		}
	}
	copied := func() int {
		return cdctest.Query[int](d, `SELECT count(*) FROM message_store.messages WHERE stream_name LIKE 'copy-%'`)
	}
	change()
	running := startProcess(t, file)
	for range kills {
		awaitTrue(t, func() bool { return copied() > written-block/2 })
		change()
		next := startProcess(t, file)
		code, _ := running.endWith(syscall.SIGKILL)
		require.Equal(t, -1, code)
		running = next
	}
	awaitTrue(t, func() bool { return copied() >= written })
	aside := filepath.Join(filepath.Dir(file), "aside.jsonl")
	refused := map[string]string{} // by id, because a process that dies after writing a line makes the next process write it again
	awaitTrue(t, func() bool {
		text, _ := os.ReadFile(aside)
		for line := range strings.Lines(string(text)) {
			var one setAsideLine
			if json.Unmarshal([]byte(line), &one) == nil { // otherwise it is being written
				refused[one.ID] = one.Key
			}
		}
		return len(refused) == kills+1
	})
	for _, key := range refused {
		require.Equal(t, tooLong.String(), key)
	}
	code, log := running.endWith(syscall.SIGTERM)
	require.Equal(t, exitOK, code, log)

	require.Equal(t, written, copied(), "each is there once")
	for i := range streams {
		original, err := store.ReadStream(t.Context(), messagedb.StreamName(fmt.Sprintf("account-%d", i)), messagedb.StreamOptions{BatchSize: messagedb.Unlimited})
		require.NoError(t, err)
		copies, err := store.ReadStream(t.Context(), messagedb.StreamName(fmt.Sprintf("copy-account-%d", i)), messagedb.StreamOptions{BatchSize: messagedb.Unlimited})
		require.NoError(t, err)
		require.Len(t, copies, len(original))
		for j, m := range copies {
			metadata, err := messagedb.DecodeMetadata[category.Metadata](m)
			require.NoError(t, err)
			require.Equal(t, original[j].ID, metadata.ID)
		}
	}
}
