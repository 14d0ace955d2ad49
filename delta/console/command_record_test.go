package console_test

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/browsertest"
	"github.com/chariot-giving/delta/internal/soak"
)

// The database records the user, target and outcome of each command. A command that cannot be recorded is not executed.
func TestCommandsAndTheirOutcomesAreRecorded(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	env := deltatest.New(t)
	client := newClient(t, env, &thingController{}) // not started: only commands change rows
	for _, name := range []string{"one", "two", "three"} {
		_, err := client.Inform(t.Context(), thing{Name: name}, nil)
		require.NoError(t, err)
	}
	address := serveConsole(t, client, console.Config{
		Authenticate: func(*http.Request) (string, bool) { return "ann", true },
		Authorize:    func(_ *http.Request, c console.Command) bool { return c.Name != console.CommandRetryAll },
		Logger:       slog.New(slog.DiscardHandler),
	})
	headers := map[string]string{"Origin": strings.TrimSuffix(address, "/ops/delta/"), "Cookie": "delta_console=t", "Sec-Fetch-Site": "same-origin"}
	give := func(command console.CommandName, fields url.Values) int {
		t.Helper()
		form := url.Values{"token": {"t"}, "command": {string(command)}}
		for name, values := range fields {
			form[name] = values
		}
		status, _ := sendRequest(t, http.MethodPost, address+commandPages[command], form.Encode(), headers)
		return status
	}
	one := url.Values{"kind": {"thing"}, "id": {"one"}}
	require.Equal(t, http.StatusSeeOther, give(console.CommandDelete, one))
	require.Equal(t, http.StatusConflict, give(console.CommandRetry, one))
	require.Equal(t, http.StatusForbidden, give(console.CommandRetryAll, url.Values{"kind": {"thing"}}), "a refused command is not recorded")
	require.Equal(t, http.StatusSeeOther, give(console.CommandPauseKind, url.Values{"kind": {"thing"}}))
	require.Equal(t, http.StatusSeeOther, give(console.CommandDeleteAll, url.Values{"kind": {"thing"}, "state": {"scheduled"}}))
	var all []delta.CommandRecord
	require.Eventually(t, func() bool {
		var err error
		all, err = client.ListCommands(t.Context(), "", "", 0, 100)
		return err == nil && len(all) == 4 && all[0].EndedAt != nil
	}, patience, 20*time.Millisecond)
	for i, want := range []struct {
		command, kind, id, filter string
		resources                 int64
	}{
		{"delete-all", "thing", "", "kind=thing&state=scheduled", 2}, {"pause-kind", "thing", "", "", -1}, {"retry", "thing", "one", "", 0}, {"delete", "thing", "one", "", 1},
	} {
		got := all[i]
		require.Equal(t, []string{"ann", want.command, want.kind, want.id, want.filter}, []string{got.Actor, got.Command, got.Kind, got.ObjectID, got.Filter})
		require.NotNil(t, got.EndedAt)
		if want.resources < 0 {
			require.Nil(t, got.Resources)
		} else {
			require.Equal(t, want.resources, *got.Resources, want.command)
		}
		require.Equal(t, want.command == "retry", got.Error != "", got.Error)
	}
	of, err := client.ListCommands(t.Context(), "thing", "one", 0, 100)
	require.NoError(t, err)
	require.Equal(t, all[2:], of)
	earlier, err := client.ListCommands(t.Context(), "", "", all[1].ID, 1)
	require.NoError(t, err)
	require.Equal(t, all[2:3], earlier)

	b := browsertest.New(t)
	b.Open(address + "resource?kind=thing&id=one")
	b.Execute(`[...document.querySelectorAll('a')].find(a => a.textContent == 'Commands given for this resource').click()`)
	b.Shows("Commands for thing/one")
	require.Contains(t, b.Text(), "ann")
	require.NotContains(t, b.Text(), "pause-kind")

	_, err = env.Pool.Exec(t.Context(), "ALTER TABLE delta_command RENAME TO away")
	require.NoError(t, err)
	require.Equal(t, http.StatusInternalServerError, give(console.CommandRevive, one))
	require.Equal(t, http.StatusInternalServerError, give(console.CommandReviveAll, url.Values{"kind": {"thing"}}))
	row, err := client.Get(t.Context(), "thing", "one")
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateDeleted, row.State)
}
