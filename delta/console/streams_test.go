package console_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/browsertest"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

// The page shows each reader with its backlog, follows their changes, and says if there are none.
func TestStreamsAreShownWithTheirLag(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	client := newLoggingClient(t, env, &stubbornController{}, true)
	// Tests share the database, and so its slots and schemas.
	unique := fmt.Sprintf("console_%d", time.Now().UnixNano())
	store, err := messagedb.NewClient(env.Pool, &messagedb.Config{Schema: unique})
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := env.Pool.Exec(context.Background(), "DROP SCHEMA IF EXISTS "+pgx.Identifier{unique}.Sanitize()+" CASCADE")
		require.NoError(t, err)
	})
	quiet := slog.New(slog.DiscardHandler)
	address := serveConsole(t, client, console.Config{MessageStore: store, StreamURL: "http://localhost:8080/", Logger: quiet}) + "streams"
	plain := serveConsole(t, client, console.Config{Logger: quiet}) + "streams"
	b := browsertest.New(t)
	b.Open(plain)
	for _, says := range []string{"The log is empty", "No consumer has a position", "No source has ever run", "Config.StreamURL links to it"} {
		b.Shows(says)
	}
	b.Open(address)
	b.Shows("Config.MessageStore has no message store")

	_, err = cdc.CreateSlot(t.Context(), env.Pool, unique, cdc.SlotOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cdc.DropSlot(context.Background(), env.Pool, unique)) })
	appendEntries(t, env, 5)
	consumer, err := client.OpenChanges(t.Context(), delta.ChangeConsumer{Name: "feed"})
	require.NoError(t, err)
	defer consumer.Close()
	changes, err := consumer.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, consumer.Save(t.Context(), changes[1].Position))
	_, err = env.Pool.Exec(t.Context(), "INSERT INTO delta_source (kind, name, epoch, runner, seen_at) VALUES ('thing', $1, 1, '1@host', now() + interval '1 hour')", hostile)
	require.NoError(t, err)
	require.NoError(t, messagedb.Migrate(t.Context(), env.Pool, unique))
	for i := range 3 {
		_, err = store.WriteMessage(t.Context(), "account-1", messagedb.ProposedMessage{Type: "Opened", Data: i}, messagedb.AnyVersion)
		require.NoError(t, err)
	}
	_, err = store.WriteMessage(t.Context(), "lonely-1", messagedb.ProposedMessage{Type: "Opened", Data: 1}, messagedb.AnyVersion)
	require.NoError(t, err)
	reader, err := store.OpenCategory(t.Context(), messagedb.ConsumerConfig{Category: "account", Identifier: "opener"})
	require.NoError(t, err)
	defer reader.Close()
	messages, err := reader.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, reader.Save(t.Context(), messages[0]))

	// cells returns the cells of the row that begins with a text.
	cells := func(section, first string) string {
		return b.Execute(`return [...document.querySelectorAll('section[aria-labelledby=` + section + `] tbody tr')].filter(r => r.cells[0].innerText === ` +
			fmt.Sprintf("%q", first) + `).map(r => [...r.cells].map(c => c.innerText).join('|')).join('\n')`).(string)
	}
	begins := func(section, first, want string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.HasPrefix(cells(section, first), want) }, patience, 100*time.Millisecond, want)
	}
	begins("log", "feed", "feed|–|runs|3|")
	begins("sources", hostile, hostile+"|thing|")
	begins("slots", unique, unique+"|nothing reads it")
	require.Contains(t, cells("slots", unique), "pgoutput")
	begins("store", "account", "account|opener|2|")
	require.Contains(t, b.Text(), "Categories without a saved position: lonely")
	require.NotContains(t, b.Text(), "saved position: account")
	require.Equal(t, "http://localhost:8080/", b.Execute(`return document.querySelector('section[aria-labelledby=slots] p a').href`))
	require.Nil(t, b.Execute("return window.ran"))
	require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('main img, main script').length"))

	// The page reloads its content.
	b.Execute("window.loadedOnce = true")
	require.NoError(t, consumer.Save(t.Context(), changes[4].Position))
	consumer.Close()
	begins("log", "feed", "feed|–|no process has it|0|")
	require.NoError(t, reader.Save(t.Context(), messages[2]))
	begins("store", "account", "account|opener|0|")
	require.Equal(t, true, b.Execute("return window.loadedOnce"), "the page was reloaded")
	takePictures(b, "console-streams")
	require.LessOrEqual(t, b.Execute("return document.documentElement.scrollWidth"), 390.0, "a phone has to scroll sideways")

	for _, wrong := range []string{"javascript:alert(1)", "localhost:8080", "http://"} {
		_, err := console.Handler(client, console.Config{StreamURL: wrong})
		require.Error(t, err)
	}
	status, _ := sendRequest(t, http.MethodPost, address, "", nil)
	require.Equal(t, http.StatusMethodNotAllowed, status)
}

// A part that cannot be read does not hide the others, and shows no error of the database.
func TestAnUnreadablePartOfStreamsHidesNoOther(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	client := newLoggingClient(t, env, &stubbornController{}, true)
	_, err := env.Pool.Exec(t.Context(), "INSERT INTO delta_source (kind, name, epoch, runner) VALUES ('thing', 'feeder', 1, '1@host'); ALTER TABLE delta_source RENAME TO renamed")
	require.NoError(t, err)
	log := &logLines{}
	b := browsertest.New(t)
	b.Open(serveConsole(t, client, console.Config{Logger: slog.New(slog.NewJSONHandler(log, nil))}) + "streams")
	b.Shows("No consumer has a position")
	b.Shows("Replication slots")
	require.NotContains(t, b.Text(), "renamed")
	require.NotContains(t, b.Text(), "delta_source")
	require.Contains(t, b.Text(), "Delta's schema is missing: see Doctor.")
	_, err = env.Pool.Exec(t.Context(), "ALTER TABLE renamed RENAME TO delta_source; ALTER TABLE delta_source ALTER failures DROP DEFAULT, ALTER failures TYPE text")
	require.NoError(t, err)
	b.Shows("It could not be read; the log of the console says why.")
	require.True(t, log.hasLine(t, map[string]string{"msg": "delta: console: a part of the page of streams could not be read", "part": "sources"}))
	_, err = env.Pool.Exec(t.Context(), "ALTER TABLE delta_source ALTER failures TYPE integer USING 0, ALTER failures SET DEFAULT 0")
	require.NoError(t, err)
	b.Shows("feeder")
}
