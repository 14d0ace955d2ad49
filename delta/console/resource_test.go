package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/browsertest"
)

// order is a kind with a log of changes.
type order struct {
	Name string          `json:"name"`
	Body json.RawMessage `json:"body"`
}

func (o order) ID() string                     { return o.Name }
func (o order) Kind() string                   { return "order" }
func (o order) Settings() delta.ObjectSettings { return delta.ObjectSettings{Log: true} }

// orders degrade whose bodies say so.
type orders struct {
	delta.WorkerDefaults[order]
	delta.InformerDefaults[order]
}

func (orders) Work(_ context.Context, r *delta.Resource[order]) error {
	if bytes.Contains(r.Object.Body, []byte("refuse")) {
		return delta.ResourceDegrade(errors.New("refused secret-error " + hostile))
	}
	return nil
}

func (orders) Inform(context.Context, *delta.InformOptions) (<-chan order, error) {
	return nil, errors.New("nothing lists them")
}

func ordersClient(t *testing.T, env *deltatest.Env, pool *pgxpool.Pool) *delta.Client {
	t.Helper()
	config := &delta.Config{
		Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix, Logger: slog.New(slog.DiscardHandler),
		Controllers: delta.NewControllers(),
	}
	delta.AddController[order](config.Controllers, orders{})
	client, err := delta.NewClient(pool, config)
	require.NoError(t, err)
	return client
}

func resourceOf(kind, id string) string {
	return "resource?" + url.Values{"kind": {kind}, "id": {id}}.Encode()
}

// read makes a request, and returns what is answered.
func read(t *testing.T, address string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	require.NoError(t, err)
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

// A person sees an object with its change against the version before, and how it has come to that; what is hidden is hidden in each version, and what is hostile is text.
func TestAResourceIsShownWithItsChangeAndItsHistory(t *testing.T) {
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	client := ordersClient(t, env, env.Pool)
	require.NoError(t, client.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = client.Stop(ctx)
	})
	inform := func(body string, state deltatype.ResourceState) {
		t.Helper()
		row, err := client.Inform(t.Context(), order{Name: "o/1", Body: json.RawMessage(body)}, nil)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			now, err := client.Get(t.Context(), "order", "o/1")
			return err == nil && now.State == state && now.Generation == row.Resource.Generation
		}, patience, 50*time.Millisecond)
	}
	address := serve(t, client, console.Config{})
	redacting := serve(t, client, console.Config{Redact: func(row *deltatype.ResourceRow) {
		for _, secret := range []string{"secret-1", "secret-2", "secret-3"} {
			row.EncodedObject = bytes.ReplaceAll(row.EncodedObject, []byte(secret), []byte("hidden"))
		}
		row.Errors = nil
	}})
	requireHarmless := func() {
		t.Helper()
		require.Nil(t, b.Execute("return window.ran"))
		require.EqualValues(t, 0, b.Execute("return document.querySelectorAll('main img, main script').length"))
	}
	encoded, err := json.Marshal(hostile)
	require.NoError(t, err)
	const marks = `return [...document.querySelectorAll('.tree .change')].map(e => e.previousElementSibling.textContent + ' ' + e.textContent).sort().join(', ')`

	inform(`{"amount": 1, "gone": "secret-1", "lines": [{"sku": "a"}]}`, deltatype.ResourceStateSynced)
	b.Open(address + resourceOf("order", "o/1"))
	b.Shows("no other version before this one")
	require.Empty(t, b.Execute(marks))
	inform(`{"amount": 2, "lines": [{"sku": "b"}], `+string(encoded)+`: `+string(encoded)+`, "note": "secret-2"}`, deltatype.ResourceStateSynced)
	b.Open(address + resourceOf("order", "o/1"))
	b.Shows("Beside the version before, which was replaced at ")
	b.Shows("5 fields differ")
	b.Shows(hostile)
	require.Equal(t, hostile+" added, amount changed, gone removed, note added, sku changed", b.Execute(marks))
	require.Equal(t, "1 → 2", b.Execute(`return [...document.querySelectorAll('.tree .changed')].map(e => e.nextElementSibling.textContent + ' → ' +
		e.nextElementSibling.nextElementSibling.textContent).find(text => text.includes('1'))`))
	requireHarmless()

	inform(`{"amount": 3, "refuse": "secret-3"}`, deltatype.ResourceStateDegraded)
	requireSound(t, b, address+resourceOf("order", "o/1"), "resource")
	b.Shows("Beside the version that was synced last, 5 fields differ")
	require.Equal(t, "failed updated created", b.Execute(`return [...document.querySelectorAll('#history ~ ol strong')].map(e => e.textContent).join(' ')`))
	b.Shows("refused secret-error " + hostile)
	requireHarmless()

	// The tree is folded by the keyboard.
	isOpen := func() any { return b.Execute(`return document.querySelector('.tree details').open`) }
	require.Equal(t, true, isOpen())
	b.Execute(`document.querySelector('.tree summary').focus()`)
	key := func(sort string) map[string]any { return map[string]any{"type": sort, "value": "\uE007"} }
	b.Call(http.MethodPost, "/actions", map[string]any{"actions": []any{
		map[string]any{"type": "key", "id": "keys", "actions": []any{key("keyDown"), key("keyUp")}},
	}}, nil)
	require.Eventually(t, func() bool { return isOpen() == false }, patience, 50*time.Millisecond)

	_, all := read(t, address+resourceOf("order", "o/1"))
	status, hidden := read(t, redacting+resourceOf("order", "o/1"))
	require.Equal(t, http.StatusOK, status)
	for _, secret := range []string{"secret-1", "secret-2", "secret-3", "secret-error"} {
		require.Contains(t, all, secret)
		require.NotContains(t, hidden, secret)
	}
	require.Contains(t, hidden, "Its error is hidden.")
	_, hidden = read(t, redacting+strings.Replace(resourceOf("order", "o/1"), "resource", "object", 1))
	require.NotContains(t, hidden, "secret")
	require.Contains(t, hidden, `"amount": 3`)
	nothing := serve(t, client, console.Config{Redact: func(row *deltatype.ResourceRow) { row.EncodedObject = nil }})
	_, hidden = read(t, nothing+resourceOf("order", "o/1"))
	require.Equal(t, 3, strings.Count(hidden, "Its object is hidden."))
	require.NotContains(t, hidden, "amount")
	status, _ = read(t, nothing+strings.Replace(resourceOf("order", "o/1"), "resource", "object", 1))
	require.Equal(t, http.StatusNotFound, status)
}

// fillOrders has the row of a resource with a history of 50 entries, an object with many members, one that is deep, one that is very large, and what is related to a resource.
const fillOrders = `
	INSERT INTO delta_controller (name, inform_interval, logs_changes, key_concurrency) VALUES ('order', '1 hour', TRUE, 1), ('plain', '1 hour', FALSE, 0);
	INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, sync_count, synced_at)
	SELECT k, i, o, '\x00', 'default', 10, 'synced', 1, now() FROM (VALUES
		('order', 'many', (SELECT jsonb_object_agg('member-' || g, g) FROM generate_series(1, 3000) g)),
		('order', 'deep', (repeat('{"a":', 200) || '"bottom"' || repeat('}', 200))::jsonb),
		('order', 'large', jsonb_build_object('text', repeat('x', 3 << 20))),
		('order', 'text', '"only a text"'),
		('order', 'parent', '{}'), ('plain', 'unlogged', '{"a": 1}')) AS v (k, i, o);
	SELECT delta_append_change('updated', delta_order_xid(null), 1, 'order', 'many', 'default', g, g, jsonb_build_object('version', g - 1), jsonb_build_object('version', g), null, null)
	FROM generate_series(1, 50) g ORDER BY g;
	INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, parents, awaited_parents, limit_key, due_at)
	VALUES ('order', 'child', '{}', '\x00', 'eu', 10, 'scheduled', '{order/parent,order/missing}', '{order/missing}', 'account-1', now());
	INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, limit_key, slot_key)
	VALUES ('order', 'holder', '{}', '\x00', 'eu', 10, 'scheduled', 'account-1', 'account-1');
	INSERT INTO delta_resource (kind, object_id, object, hash, namespace, max_attempts, state, limit_key, queued_at, due_at)
	SELECT 'order', 'waiter-' || lpad(g::text, 2, '0'), '{}', '\x00', 'eu', 10, 'scheduled', 'account-1', now() + g * interval '1 s', now() FROM generate_series(1, 30) g`

// What a page shows is bounded and says so; what is related to a resource has links; and a page is a few statements.
func TestThePageOfAResourceIsBounded(t *testing.T) {
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), fillOrders)
	require.NoError(t, err)
	config := env.Pool.Config()
	statements := &counted{}
	config.ConnConfig.Tracer = statements
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	client := ordersClient(t, env, env.Pool)
	address := serve(t, client, console.Config{})
	// A console that nobody else asks: the browser's pages ask again by themselves.
	counting := serve(t, ordersClient(t, env, pool), console.Config{})

	for _, c := range []struct{ id, says string }{
		{"many", "2,002 more members, not shown"}, {"deep", "Not all of it is shown."}, {"large", "It is too large to be compared with the version before."}, {"text", "only a text"},
	} {
		status, text := read(t, address+resourceOf("order", c.id))
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, text, c.says)
		require.Less(t, len(text), 600<<10, c.id)
		_, whole := read(t, address+strings.Replace(resourceOf("order", c.id), "resource", "object", 1))
		row, err := client.Get(t.Context(), "order", c.id)
		require.NoError(t, err)
		require.Equal(t, string(row.EncodedObject), whole)
	}
	_, text := read(t, address+resourceOf("plain", "unlogged"))
	require.Contains(t, text, "What it was before is not known: its kind has no log of changes.")
	require.Contains(t, text, "<p class=\"faint\">Its kind has no log of changes.")
	status, _ := read(t, address+resourceOf("order", "many")+"&before=x")
	require.Equal(t, http.StatusBadRequest, status)

	// The history goes back page by page, each entry once.
	generations := `return [...document.querySelectorAll('#history ~ ol > li > p > span')].map(e => e.textContent.match(/generation (\d+)/)[1]).join(' ')`
	b.Open(address + resourceOf("order", "many"))
	b.Shows("generation 50")
	seen := fmt.Sprint(b.Execute(generations))
	for _, last := range []string{"generation 11", "generation 1,"} {
		b.Execute(`[...document.querySelectorAll('a')].find(a => a.textContent == 'Older entries').click()`)
		b.Shows(last)
		seen += " " + fmt.Sprint(b.Execute(generations))
	}
	var want []string
	for g := 50; g > 0; g-- {
		want = append(want, fmt.Sprint(g))
	}
	require.Equal(t, strings.Join(want, " "), seen)
	require.EqualValues(t, 0, b.Execute(`return [...document.querySelectorAll('a')].filter(a => a.textContent == 'Older entries').length`))

	requireSound(t, b, address+resourceOf("order", "child"), "related")
	for _, says := range []string{"order/parent synced", "order/missing it is not there it has to be synced once before", "order/holder scheduled", "order/waiter-20 scheduled", "There are more."} {
		b.Shows(says)
	}
	require.NotContains(t, b.Text(), "waiter-21")
	b.Execute(`[...document.querySelectorAll('#related ~ ul a')].find(a => a.textContent == 'order/parent').click()`)
	b.Shows("order/child scheduled")
	b.Execute(`[...document.querySelectorAll('#related ~ p a')][0].click()`)
	b.Shows("plain/unlogged")

	for id, most := range map[string]int64{"many": 4, "child": 8} {
		_, _ = read(t, counting+resourceOf("order", id)) // what a client asks once
		before := statements.n.Load()
		status, _ = read(t, counting+resourceOf("order", id))
		require.Equal(t, http.StatusOK, status)
		require.LessOrEqual(t, statements.n.Load()-before, most, id)
	}
}

// counted counts statements.
type counted struct{ n atomic.Int64 }

func (c *counted) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}

func (c *counted) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
