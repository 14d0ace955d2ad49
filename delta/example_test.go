package delta_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// The examples have these at hand.
var (
	ctx    = context.Background()
	pool   *pgxpool.Pool
	config = &delta.Config{}

	metrics client.MetricsHandler
	tracing interceptor.ClientInterceptor
)

type User struct {
	UserID, Name string
	UpdatedAt    time.Time
}

func (u *User) ID() string           { return u.UserID }
func (u *User) Kind() string         { return "user" }
func (u *User) CreatedAt() time.Time { return u.UpdatedAt }

func (u *User) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{
		Parallelism:    10,
		RateLimit:      50, // calls of Work a second, of all clients together
		InformInterval: 15 * time.Minute,
		RetryPolicy:    delta.RetryPolicy{InitialInterval: 5 * time.Second, MaximumInterval: time.Hour},
	}
}

func (u *User) Compare(other delta.Object) (int, bool) {
	o, ok := other.(*User)
	if !ok {
		return 0, false
	}
	return u.UpdatedAt.Compare(o.UpdatedAt), true
}

type UserController struct {
	delta.WorkerDefaults[*User]
	delta.ListerDefaults[*User]
	api interface {
		Put(ctx context.Context, user *User, idempotencyKey string) (*http.Response, error)
		Delete(ctx context.Context, user *User, idempotencyKey string) (*http.Response, error)
		PutMany(ctx context.Context, users []*delta.Resource[*User]) (statuses []int, err error)
		List(ctx context.Context, after *time.Time, page string) (users []*User, next string, err error)
	}
}

// What Work returns decides how the resource goes on.
func (c *UserController) Work(ctx context.Context, r *delta.Resource[*User]) error {
	response, err := c.api.Put(ctx, r.Object, r.IdempotencyKey())
	if err != nil {
		return err // failed: tried again later
	}
	switch response.StatusCode {
	case http.StatusOK:
		return nil // synced
	case http.StatusTooManyRequests:
		return delta.SnoozeKind(30 * time.Second) // the limit is that of all resources: the kind waits, and nothing is counted
	case http.StatusGone:
		return delta.ResourceDelete(errors.New(response.Status)) // deleted
	case http.StatusBadRequest:
		return delta.ResourceDegrade(errors.New(response.Status)) // degraded, at once
	}
	return errors.New(response.Status)
}

// Invoice carries its own version, as most providers' objects do.
type Invoice struct {
	Number    string
	Amount    int
	UpdatedAt time.Time
}

func (i Invoice) ID() string   { return i.Number }
func (i Invoice) Kind() string { return "invoice" }

// It rises with each change.
func (i Invoice) Revision() int64 { return i.UpdatedAt.UnixMicro() }

// Version says that the amount is in cents by now.
func (i Invoice) Version() int { return 2 }

// InvoiceController upgrades what was stored before.
type InvoiceController struct{}

// It is called with what version 1, or none, of the type has stored.
func (InvoiceController) Upgrade(_ int, object []byte) ([]byte, error) {
	var old Invoice
	if err := json.Unmarshal(object, &old); err != nil {
		return nil, err
	}
	old.Amount *= 100
	return json.Marshal(old)
}

var _ delta.Upgrader = InvoiceController{}

// An upstream that takes many in one call, where the kind has a BatchSize.
func (c *UserController) WorkBatch(ctx context.Context, users []*delta.Resource[*User]) []error {
	results := make([]error, len(users)) // nil means synced, as from Work
	response, err := c.api.PutMany(ctx, users)
	for i := range users {
		switch {
		case err != nil:
			results[i] = err
		case response[i] != http.StatusOK:
			results[i] = errors.New(http.StatusText(response[i]))
		default:
			delta.Logger(delta.WithResource(ctx, users[i].ResourceRow)).Debug("put")
		}
	}
	return results
}

// What was deleted is cleared up before its row is removed.
func (c *UserController) Finalize(ctx context.Context, r *delta.Resource[*User]) error {
	if r.Cause != deltatype.CauseCommand {
		return nil // a listing, or Work, has found it gone outside
	}
	response, err := c.api.Delete(ctx, r.Object, r.IdempotencyKey())
	switch {
	case err != nil:
		return err // tried again later
	case response.StatusCode == http.StatusNotFound, response.StatusCode == http.StatusOK:
		return nil // done: the row may be removed after its retention
	}
	return errors.New(response.Status)
}

// All that exists, in pages. An error that is yielded fails the pass: the cursor stays, and nothing is marked deleted.
func (c *UserController) List(ctx context.Context, options *delta.InformOptions) iter.Seq2[*User, error] {
	return func(yield func(*User, error) bool) {
		for page := ""; ; {
			users, next, err := c.api.List(ctx, options.After, page)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, u := range users {
				if !yield(u, nil) {
					return
				}
			}
			if page = next; page == "" {
				return
			}
		}
	}
}

func Example() {
	controllers := delta.NewControllers()
	delta.AddController(controllers, &UserController{})

	client, err := delta.NewClient(pool, &delta.Config{
		Namespaces: map[string]delta.NamespaceConfig{
			delta.NamespaceDefault: {MaxWorkers: 10, ResourceExpiry: 24 * time.Hour},
		},
		Controllers: controllers,
	})
	if err != nil {
		panic(err)
	}
	if err := client.Start(ctx); err != nil {
		panic(err)
	}
	defer client.Stop(ctx)
}

func ExampleClient_Stop() {
	deltaClient, err := delta.NewClient(pool, config)
	if err != nil {
		panic(err)
	}
	// Not the context of the signal: when that of Start ends, Work is cut off.
	if err := deltaClient.Start(context.Background()); err != nil {
		panic(err)
	}

	told, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer done()
	<-told.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := deltaClient.Stop(ctx); err != nil {
		slog.Warn("Work was cut off, and is tried again by others", "error", err)
	}
}

func ExampleConfig_temporalOptions() {
	config := &delta.Config{
		Controllers: delta.NewControllers(),
		TemporalOptions: func(o *client.Options) {
			o.MetricsHandler = metrics
			o.Interceptors = append(o.Interceptors, tracing)
		},
	}
	_ = config
}

func ExampleConfig_workerVersion() {
	config := &delta.Config{
		Controllers: delta.NewControllers(),
		// Both are empty where the environment sets neither: then any worker gets tasks.
		WorkerVersion: delta.WorkerVersion{
			Deployment: os.Getenv("TEMPORAL_DEPLOYMENT_NAME"),
			BuildID:    os.Getenv("TEMPORAL_WORKER_BUILD_ID"),
		},
	}
	_ = config
}

func ExampleTemporalLogger() {
	temporal, err := client.Dial(client.Options{Logger: delta.TemporalLogger(slog.Default())})
	if err != nil {
		panic(err)
	}
	defer temporal.Close()
	config := &delta.Config{Temporal: temporal}
	_ = config
}

func ExampleProbes() {
	deltaClient, err := delta.NewClient(pool, config)
	if err != nil {
		panic(err)
	}
	probes := &http.Server{Addr: ":8081", Handler: delta.Probes(deltaClient), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = probes.ListenAndServe() }() // before Start: a program that waits for Temporal is alive
	defer probes.Close()
	if err := deltaClient.Start(context.Background()); err != nil {
		panic(err)
	}
	<-deltaClient.Done()
	slog.Info("Delta has stopped", "error", deltaClient.Err())
}

func ExampleMetrics() {
	deltaClient, err := delta.NewClient(pool, config) // it need not be started
	if err != nil {
		panic(err)
	}
	http.Handle("GET /metrics", delta.Metrics(deltaClient))
}

func ExampleClient_Figures() {
	deltaClient, _ := delta.NewClient(pool, config)
	figures, err := deltaClient.Figures(ctx, "user", time.Now().Add(-3*time.Hour))
	if err != nil {
		panic(err)
	}
	for _, f := range figures { // a minute each; those without attempts are left out
		fmt.Println(f.Minute, f.Attempts[delta.OutcomeSynced], f.Attempts[delta.OutcomeFailed], f.P50, f.P95)
	}
}

func ExampleClient_InformTx() {
	deltaClient, _ := delta.NewClient(pool, config)
	tx, err := pool.Begin(ctx)
	if err != nil {
		panic(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "INSERT INTO users (id) VALUES ($1)", "usr_3kd81mQa7Lp"); err != nil {
		panic(err)
	}
	// Synced when the transaction commits; nothing of it is left when it rolls back.
	if _, err := deltaClient.InformTx(ctx, tx, &User{UserID: "usr_3kd81mQa7Lp"}, nil); err != nil {
		panic(err)
	}
	if err := tx.Commit(ctx); err != nil {
		panic(err)
	}
}

// A webhook that brings an id, and no object.
func ExampleClient_Touch() {
	deltaClient, _ := delta.NewClient(pool, config)
	switch _, err := deltaClient.Touch(ctx, "user", "usr_3kd81mQa7Lp"); {
	case errors.Is(err, delta.ErrNotFound):
		fmt.Println("never heard of it: the informer will list it")
	case err != nil:
		fmt.Println("answer 500, so that the webhook comes again:", err)
	}
}

func ExampleClient_Sync() {
	deltaClient, _ := delta.NewClient(pool, config)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	row, err := deltaClient.Sync(ctx, &User{UserID: "usr_3kd81mQa7Lp"}, nil)
	switch {
	case errors.Is(err, delta.ErrNotSynced):
		fmt.Println("it did not work out:", row.State, row.Errors)
	case err != nil:
		fmt.Println("it is informed, and will be synced; I did not wait:", err)
	default:
		fmt.Println("synced at", row.SyncedAt)
	}
}

func ExampleListAs() {
	deltaClient, _ := delta.NewClient(pool, config)
	ann, err := delta.GetAs[*User](ctx, deltaClient, "usr_3kd81mQa7Lp")
	if err != nil {
		panic(err)
	}
	fmt.Println(ann.Object.Name, ann.State)
	users, err := delta.ListAs[*User](ctx, deltaClient, delta.Filter{Tags: []string{"vip"}}, delta.Page{})
	if unreadable := new(delta.UnreadableError); errors.As(err, &unreadable) {
		fmt.Println("stored by another version of User:", unreadable.ObjectID)
	} else if err != nil {
		panic(err)
	}
	for _, user := range users {
		fmt.Println(user.ObjectID, user.SyncedAt)
	}
}

func ExampleClient_Subscribe() {
	deltaClient, _ := delta.NewClient(pool, config)
	events, cancel := deltaClient.Subscribe(delta.EventCategoryObjectSynced, delta.EventCategoryObjectFailed)
	defer cancel()
	for e := range events {
		switch {
		case e.EventCategory == delta.EventCategoryObjectSynced && e.Resource.SyncCount == 1:
			fmt.Println("created", e.Resource.ObjectID)
		case e.EventCategory == delta.EventCategoryObjectSynced:
			fmt.Println("updated", e.Resource.ObjectID)
		case e.Resource.State == deltatype.ResourceStateDegraded:
			fmt.Println("given up", e.Resource.ObjectID)
		}
	}
}

func ExampleResource_CompleteTx() {
	// In Work: what it writes to this database commits with the fact that it was done, or not at all.
	work := func(ctx context.Context, r *delta.Resource[*User]) error {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, "UPDATE balances SET credit = credit + 10 WHERE user_id = $1", r.Object.UserID); err != nil {
			return err
		}
		if err := r.CompleteTx(ctx, tx); err != nil {
			return err // another attempt has taken over: roll back
		}
		return tx.Commit(ctx)
	}
	_ = work
}

func ExampleClient_RunInform() {
	deltaClient, _ := delta.NewClient(pool, config)
	run, err := deltaClient.RunInform(ctx, delta.ScheduleInformParams{
		ResourceKind:    "user",
		ProcessExisting: true, // also those that did not change
		RunForeground:   true, // until all of it has settled
	}, &delta.InformOptions{Labels: map[string]string{"team": "blue"}})
	fmt.Println(run.Listed, "users;", err)
}

func ExampleClient_List() {
	deltaClient, _ := delta.NewClient(pool, config)
	filter := delta.Filter{
		Kinds:  []string{"user"},
		States: []deltatype.ResourceState{deltatype.ResourceStateDegraded},
		Labels: map[string]string{"team": "blue"},
	}
	for page := (delta.Page{Limit: 500}); ; {
		rows, err := deltaClient.List(ctx, filter, page)
		if err != nil {
			panic(err)
		}
		for _, row := range rows {
			fmt.Println(row.ObjectID, row.Errors[len(row.Errors)-1].Error)
			page.After = row.ID
		}
		if len(rows) < page.Limit {
			break
		}
	}
	retried, err := deltaClient.RetryAll(ctx, filter)
	fmt.Println(retried, err)
}

func ExampleClient_Explain() {
	deltaClient, _ := delta.NewClient(pool, config)
	explained, err := deltaClient.Explain(ctx, "user", "usr_8fT2xw0VbRc")
	if err != nil {
		panic(err)
	}
	for _, reason := range explained.Reasons { // the first one decides
		fmt.Println(reason.Code, reason.Text, reason.Until, reason.Remedy)
	}
}

func ExampleClient_Register() {
	temporal, err := client.Dial(client.Options{})
	if err != nil {
		panic(err)
	}
	controllers := delta.NewControllers()
	delta.AddController(controllers, &UserController{})
	deltaClient, err := delta.NewClient(pool, &delta.Config{Controllers: controllers, Temporal: temporal, TaskQueue: "mine"})
	if err != nil {
		panic(err)
	}
	w := sdkworker.New(temporal, "mine", sdkworker.Options{})
	if err := deltaClient.Register(w); err != nil { // beside your own workflows and activities
		panic(err)
	}
	if err := w.Start(); err != nil {
		panic(err)
	}
	defer w.Stop()
	if err := deltaClient.Start(ctx); err != nil { // dispatches; starts no workers
		panic(err)
	}
	defer deltaClient.Stop(ctx)
}

func ExampleClientFromContext() {
	// In Work or Inform: one object may lead to others.
	work := func(ctx context.Context, r *delta.Resource[*User]) error {
		_, err := delta.ClientFromContext(ctx).Inform(ctx, &User{UserID: "usr_8fT2xw0VbRc"}, nil)
		return err
	}
	_ = work
}
