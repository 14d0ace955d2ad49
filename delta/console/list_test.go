package console_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/browsertest"
	"github.com/chariot-giving/delta/internal/soak"
)

const listedIDs = "return [...document.querySelectorAll('.resources li code')].map(c => c.innerText.replace('thing/', '')).join()"

// submitFilter sets fields of the filter form of the list, and submits it.
func submitFilter(b *browsertest.Browser, fields ...string) {
	script := "const f = document.querySelector('form.filter'); "
	for i := 0; i < len(fields); i += 2 {
		script += fmt.Sprintf("{ const e = f.elements[%q]; if (e.type === 'checkbox') e.checked = true; else e.value = %q; } ", fields[i], fields[i+1])
	}
	b.Execute(script + "f.querySelector('button').click()")
}

// A person finds resources by a text in their error, and late ones, and gives a command to these only. The list shows the error, or the due time.
// No client runs, so only the command changes rows.
func TestAPersonFindsResourcesByErrorAndLateness(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	client := newClient(t, env, &thingController{})
	_, err := env.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, namespace, state, attempt, max_attempts, hash, object, generation_at, due_at, dispatch_at, errors)
		SELECT 'thing', id, 'default', state::delta_resource_state, 1, 10, '', '{}', now() - changed * interval '1 hour', now() + due * interval '1 hour', now(),
			CASE WHEN error = '' THEN '{}' ELSE ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', error)] END
		FROM (VALUES ('a', 'degraded', 1, 5, 'quota: 100% used'), ('b', 'failed', 2, 2, 'user_id: ' || $1), ('c', 'failed', 3, 1, 'a timeout'), ('d', 'degraded', 4, 3, 'user_id: ' || $1),
			('e', 'synced', 5, -2, ''), ('f', 'scheduled', 6, -3, ''), ('g', 'synced', 7, 1, 'user_id, before it was synced')) v (id, state, changed, due, error)`, hostile)
	require.NoError(t, err)
	address := serveConsole(t, client, console.Config{Authorize: func(*http.Request, console.Command) bool { return true }, Logger: slog.New(slog.DiscardHandler)})

	open := func(fields ...string) {
		t.Helper()
		b.Open(address + "resources")
		b.Shows("7 resources match.")
		submitFilter(b, fields...)
	}
	for text, want := range map[string]string{"user_id": "b,d", "%": "a", "_": "b,d", hostile: "b,d"} {
		open("error", text)
		b.Shows(map[bool]string{true: "1 resource matches.", false: "2 resources match."}[want == "a"])
		require.Equal(t, want, b.Execute(listedIDs), text)
		require.Equal(t, text, b.Execute("return document.querySelector('form.filter').elements.error.value"))
	}
	open("error", hostile)
	b.Shows("user_id: " + hostile)
	require.Nil(t, b.Execute("return window.ran"))
	open("error", "no such")
	b.Shows("No resource matches.")
	open("late", "")
	b.Shows("2 resources match.")
	require.Equal(t, "e,f", b.Execute(listedIDs))
	require.Equal(t, true, b.Execute("return document.querySelector('form.filter').elements.late.checked"))
	b.Shows("due since ")
	b.Shows("(2h")
	require.Regexp(t, `\(2h(\d+m)? ago\)`, b.Execute("return document.body.innerText"))
	open("late", "", "state", "synced")
	b.Shows("1 resource matches.")
	require.Equal(t, "e", b.Execute(listedIDs))

	for _, order := range []struct{ name, want string }{
		{"created", "a,b,c,d"}, {"newest", "d,c,b,a"}, {"changed", "a,b,c,d"}, {"unchanged", "d,c,b,a"}, {"due", "c,b,d,a"}, {"due-last", "a,d,b,c"}, {"error", "c,a,b,d"},
	} {
		b.Open(address + "resources?error=" + url.QueryEscape("t") + "&sort=" + order.name)
		b.Shows("match")
		// Each latest error of a to d has a t; that of b and d has it in the hostile text.
		require.Equal(t, order.want, b.Execute(listedIDs), order.name)
		require.Equal(t, order.name, b.Execute("return document.querySelector('form.filter').elements.sort.value"))
	}
	open("late", "", "sort", "due")
	b.Shows("2 resources match.")
	require.Equal(t, "f,e", b.Execute(listedIDs))
	open("sort", "changed")
	b.Shows("needs a filter with Late")
	b.Open(address + "resources?error=t&sort=changed")
	b.Shows("changed 1h")
	require.Regexp(t, `changed 1h(\d+m)? ago`, b.Execute("return document.body.innerText"), "the minutes are those of a busy machine")
	if *screenshots {
		b.Picture(os.TempDir() + "/console-list-error.png")
	}
	takePictures(b, "console-list-changed")
	require.LessOrEqual(t, b.Execute("return document.documentElement.scrollWidth"), 390.0, "a phone has to scroll sideways")

	// A bulk command applies to the resources that the list shows.
	open("error", "user_id", "state", "failed")
	b.Shows("1 resource matches.")
	require.Equal(t, "retry-all…,delete-all…", b.Execute("return [...document.querySelectorAll('.button')].map(a => a.innerText).join()"))
	b.Execute("document.querySelector('.button').click()")
	b.Shows("1 resource\n")
	b.Shows("user_id")
	b.Execute("document.querySelector('button[value=retry-all]').click()")
	b.Shows("Done: 1")
	for id, state := range map[string]deltatype.ResourceState{"b": "scheduled", "c": "failed", "d": "degraded"} {
		row, err := client.Get(t.Context(), "thing", id)
		require.NoError(t, err)
		require.Equal(t, state, row.State, id)
	}
	b.Open(address + "bulk?command=delete-all&late=yes")
	b.Shows("2 resources\n")

	// A search cannot reveal errors that Redact hides.
	hidden := serveConsole(t, client, console.Config{Redact: func(row *deltatype.ResourceRow) { row.Errors = nil }})
	b.Open(hidden + "resources?state=degraded")
	b.Shows("2 resources match.")
	require.Nil(t, b.Execute("return document.querySelector('form.filter').elements.error ?? null"))
	for path, status := range map[string]int{
		"resources?error=user": 400, "resources?state=degraded&sort=error": 400, "resources?state=degraded&sort=changed": 200, "resources?sort=name": 400,
		"resources?cursor=x": 400, "bulk?command=retry-all&error=user": 400,
	} {
		got, _ := sendRequest(t, http.MethodGet, hidden+path, "", nil)
		require.Equal(t, status, got, path)
	}
}

// Pages continue where the last one ended, in both directions, even if earlier rows have changed. For many matches the page shows an estimate.
func TestAListIsPagedBothWays(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	client := newClient(t, env, &thingController{})
	const rows, failing, page = 40_000, 120, 50
	_, err := env.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, namespace, state, attempt, max_attempts, hash, object, errors)
		SELECT 'thing', lpad(i::text, 5, '0'), 'default', (CASE WHEN i <= $2 THEN 'degraded' ELSE 'synced' END)::delta_resource_state, 1, 10, '', '{}',
			CASE WHEN i <= $2 THEN ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', CASE WHEN i % 3 = 0 THEN 'early' ELSE 'late' END)] ELSE '{}' END
		FROM generate_series(1, $1) i`, rows, failing)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), "ANALYZE delta_resource")
	require.NoError(t, err)
	ids := []string{}
	for _, isEarly := range []bool{true, false} {
		for i := 1; i <= failing; i++ {
			if (i%3 == 0) == isEarly {
				ids = append(ids, fmt.Sprintf("%05d", i))
			}
		}
	}
	address := serveConsole(t, client, console.Config{})
	b.Open(address + "resources")
	b.Shows("About ")
	b.Shows(" resources match, by an estimate of the database.")
	b.Open(address + "resources?state=degraded&sort=error")
	b.Shows("120 resources match.")
	links := "return ['first', 'previous', 'next'].filter(id => document.getElementById(id)).join()"
	follow := func(link, first string, want []string, has string) {
		t.Helper()
		b.Execute("document.getElementById('" + link + "').click()")
		b.Shows("thing/" + first)
		require.Equal(t, strings.Join(want, ","), b.Execute(listedIDs))
		require.Equal(t, has, b.Execute(links))
	}
	require.Equal(t, strings.Join(ids[:page], ","), b.Execute(listedIDs))
	require.Equal(t, "next", b.Execute(links))
	follow("next", ids[page], ids[page:2*page], "first,previous,next")
	follow("next", ids[2*page], ids[2*page:], "first,previous")
	follow("previous", ids[page], ids[page:2*page], "first,previous,next")
	_, err = env.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = 'synced' WHERE object_id = ANY ($1)", ids[:10])
	require.NoError(t, err)
	follow("next", ids[2*page], ids[2*page:], "first,previous")
	follow("first", ids[10], ids[10:10+page], "next")
	follow("next", ids[10+page], ids[10+page:10+2*page], "first,previous,next")
	follow("previous", ids[10], ids[10:10+page], "first,next")
}
