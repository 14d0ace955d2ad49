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
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/browsertest"
	"github.com/chariot-giving/delta/internal/soak"
)

// order is a kind with a log of changes.
type order struct {
	Name string          `json:"name"`
	Body json.RawMessage `json:"body"`
}

func (o order) ID() string                     { return o.Name }
func (o order) Kind() string                   { return "order" }
func (o order) Settings() delta.ObjectSettings { return delta.ObjectSettings{Log: true} }

// orders degrades orders whose body contains "refuse".
type orderController struct {
	delta.WorkerDefaults[order]
	delta.InformerDefaults[order]
}

func (orderController) Work(_ context.Context, r *delta.Resource[order]) error {
	if bytes.Contains(r.Object.Body, []byte("refuse")) {
		return delta.ResourceDegrade(errors.New("refused secret-error " + hostile))
	}
	return nil
}

func (orderController) Inform(context.Context, *delta.InformOptions) (<-chan order, error) {
	return nil, errors.New("orders have no listing")
}

func newOrderClient(t *testing.T, env *deltatest.Env, pool *pgxpool.Pool) *delta.Client {
	t.Helper()
	config := &delta.Config{
		Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix, Logger: slog.New(slog.DiscardHandler),
		Controllers: delta.NewControllers(),
	}
	delta.AddController[order](config.Controllers, orderController{})
	client, err := delta.NewClient(pool, config)
	require.NoError(t, err)
	return client
}

func resourceAddressOf(kind, id string) string {
	return "resource?" + url.Values{"kind": {kind}, "id": {id}}.Encode()
}

// readPage makes a request, and returns the status and body of the response.
func readPage(t *testing.T, address string) (int, string) {
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

// A person sees the changes of an object since its previous version, and its history. Redact hides data in every version, and HTML is shown as text.
func TestAResourceIsShownWithItsChangeAndItsHistory(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	client := newOrderClient(t, env, env.Pool)
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
	address := serveConsole(t, client, console.Config{})
	redacting := serveConsole(t, client, console.Config{Redact: func(row *deltatype.ResourceRow) {
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
	b.Open(address + resourceAddressOf("order", "o/1"))
	b.Shows("The log of changes has no previous version")
	require.Empty(t, b.Execute(marks))
	inform(`{"amount": 2, "lines": [{"sku": "b"}], `+string(encoded)+`: `+string(encoded)+`, "note": "secret-2"}`, deltatype.ResourceStateSynced)
	b.Open(address + resourceAddressOf("order", "o/1"))
	b.Shows("Compared with the previous version, which was replaced at ")
	b.Shows("5 fields differ")
	b.Shows(hostile)
	require.Equal(t, hostile+" added, amount changed, gone removed, note added, sku changed", b.Execute(marks))
	require.Equal(t, "1 → 2", b.Execute(`return [...document.querySelectorAll('.tree .changed')].map(e => e.nextElementSibling.textContent + ' → ' +
		e.nextElementSibling.nextElementSibling.textContent).find(text => text.includes('1'))`))
	requireHarmless()

	inform(`{"amount": 3, "refuse": "secret-3"}`, deltatype.ResourceStateDegraded)
	requireSound(t, b, address+resourceAddressOf("order", "o/1"), "resource")
	b.Shows("Compared with the last synced version, 5 fields differ")
	require.Equal(t, "failed updated created", b.Execute(`return [...document.querySelectorAll('#history ~ ol strong')].map(e => e.textContent).join(' ')`))
	b.Shows("refused secret-error " + hostile)
	requireHarmless()

	// The keyboard folds the tree.
	isOpen := func() any { return b.Execute(`return document.querySelector('.tree details').open`) }
	require.Equal(t, true, isOpen())
	b.Execute(`document.querySelector('.tree summary').focus()`)
	key := func(sort string) map[string]any { return map[string]any{"type": sort, "value": "\uE007"} }
	b.Call(http.MethodPost, "/actions", map[string]any{"actions": []any{
		map[string]any{"type": "key", "id": "keys", "actions": []any{key("keyDown"), key("keyUp")}},
	}}, nil)
	require.Eventually(t, func() bool { return isOpen() == false }, patience, 50*time.Millisecond)

	_, all := readPage(t, address+resourceAddressOf("order", "o/1"))
	status, hidden := readPage(t, redacting+resourceAddressOf("order", "o/1"))
	require.Equal(t, http.StatusOK, status)
	for _, secret := range []string{"secret-1", "secret-2", "secret-3", "secret-error"} {
		require.Contains(t, all, secret)
		require.NotContains(t, hidden, secret)
	}
	require.Contains(t, hidden, "The error is hidden.")
	_, hidden = readPage(t, redacting+strings.Replace(resourceAddressOf("order", "o/1"), "resource", "object", 1))
	require.NotContains(t, hidden, "secret")
	require.Contains(t, hidden, `"amount": 3`)
	nothing := serveConsole(t, client, console.Config{Redact: func(row *deltatype.ResourceRow) { row.EncodedObject = nil }})
	_, hidden = readPage(t, nothing+resourceAddressOf("order", "o/1"))
	require.Equal(t, 3, strings.Count(hidden, "The object of this entry is hidden."))
	require.NotContains(t, hidden, "amount")
	status, _ = readPage(t, nothing+strings.Replace(resourceAddressOf("order", "o/1"), "resource", "object", 1))
	require.Equal(t, http.StatusNotFound, status)
}

// fillOrders inserts a resource with 50 entries in the log, objects with many members, a deep one and a very large one, and related resources.
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

// A page of a resource is bounded and says so, links to related resources, and needs a few statements.
func TestThePageOfAResourceIsBounded(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := browsertest.New(t)
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), fillOrders)
	require.NoError(t, err)
	config := env.Pool.Config()
	statements := &statementTracer{}
	config.ConnConfig.Tracer = statements
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	client := newOrderClient(t, env, env.Pool)
	address := serveConsole(t, client, console.Config{})
	// A second console to count statements, because the browser's pages of the first reload themselves.
	counting := serveConsole(t, newOrderClient(t, env, pool), console.Config{})

	for _, c := range []struct{ id, says string }{
		{"many", "2,002 more members, not shown"}, {"deep", "A part of the object is not shown."}, {"large", "The object is too large to be compared with the previous version."}, {"text", "only a text"},
	} {
		status, text := readPage(t, address+resourceAddressOf("order", c.id))
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, text, c.says)
		require.Less(t, len(text), 600<<10, c.id)
		_, whole := readPage(t, address+strings.Replace(resourceAddressOf("order", c.id), "resource", "object", 1))
		row, err := client.Get(t.Context(), "order", c.id)
		require.NoError(t, err)
		require.Equal(t, string(row.EncodedObject), whole)
	}
	_, text := readPage(t, address+resourceAddressOf("plain", "unlogged"))
	require.Contains(t, text, "The previous version is unknown: the kind has no log of changes.")
	require.Contains(t, text, "<p class=\"faint\">The kind has no log of changes.")
	status, _ := readPage(t, address+resourceAddressOf("order", "many")+"&before=x")
	require.Equal(t, http.StatusBadRequest, status)

	// The pages of the history have each entry once, back to the first.
	generations := `return [...document.querySelectorAll('#history ~ ol > li > p > span')].map(e => e.textContent.match(/generation (\d+)/)[1]).join(' ')`
	b.Open(address + resourceAddressOf("order", "many"))
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

	requireSound(t, b, address+resourceAddressOf("order", "child"), "related")
	for _, says := range []string{"order/parent synced", "order/missing does not exist has to be synced first", "order/holder scheduled", "order/waiter-20 scheduled", "There are more."} {
		b.Shows(says)
	}
	require.NotContains(t, b.Text(), "waiter-21")
	b.Execute(`[...document.querySelectorAll('#related ~ ul a')].find(a => a.textContent == 'order/parent').click()`)
	b.Shows("order/child scheduled")
	b.Execute(`[...document.querySelectorAll('#related ~ p a')][0].click()`)
	b.Shows("plain/unlogged")

	// One of them reads earlier versions: they are compared here, because a codec may have encoded equal objects differently.
	for id, most := range map[string]int{"many": 5, "child": 9} {
		// A client asks once what it must know of its installation, when Temporal answers it for the first time.
		require.Eventually(t, func() bool {
			status, text := readPage(t, counting+resourceAddressOf("order", id))
			return status == http.StatusOK && !strings.Contains(text, "Temporal did not answer")
		}, patience, 10*time.Millisecond)
		statements.takeAll()
		status, _ = readPage(t, counting+resourceAddressOf("order", id))
		require.Equal(t, http.StatusOK, status)
		read := statements.takeAll()
		require.LessOrEqual(t, len(read), most, "%s: %v", id, read)
	}
}
