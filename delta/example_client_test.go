package delta_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func ExampleClient_InformTx() {
	deltaClient, pool, stop := startUsers(newUsersAPI())
	defer stop()
	if _, err := pool.Exec(ctx, "CREATE TABLE users (id text)"); err != nil {
		panic(err)
	}

	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO users (id) VALUES ($1)", "usr_3kd81mQa7Lp"); err != nil {
			return err
		}
		// Synced once the transaction commits; if it rolls back, nothing of it is left.
		informed, err := deltaClient.InformTx(ctx, tx, &User{UserID: "usr_3kd81mQa7Lp", Name: "Ann"}, nil)
		if err != nil {
			return err
		}
		fmt.Println(informed.Resource.ObjectID, informed.Resource.State)
		return nil
	})
	fmt.Println(err)
	// Output:
	// usr_3kd81mQa7Lp scheduled
	// <nil>
}

// A webhook that brings an id, and no object.
func ExampleClient_Touch() {
	deltaClient, _, stop := startUsers(newUsersAPI())
	defer stop()

	switch _, err := deltaClient.Touch(ctx, "user", "usr_3kd81mQa7Lp"); {
	case errors.Is(err, delta.ErrNotFound):
		fmt.Println("not known yet: the informer will list it")
	case err != nil:
		fmt.Println("answer 500, so that the webhook comes again:", err)
	}
	// Output: not known yet: the informer will list it
}

func ExampleClient_Sync() {
	deltaClient, _, stop := startUsers(newUsersAPI())
	defer stop()

	row, err := deltaClient.Sync(ctx, &User{UserID: "usr_3kd81mQa7Lp", Name: "Ann"}, nil)
	switch {
	case errors.Is(err, delta.ErrNotSynced):
		fmt.Println("it did not work out:", row.State, row.Errors)
	case err != nil:
		fmt.Println("it is informed, and will be synced, but ctx has ended:", err)
	default:
		fmt.Println(row.ObjectID, row.State)
	}
	// Output: usr_3kd81mQa7Lp synced
}

func ExampleListAs() {
	deltaClient, _, stop := startUsers(newUsersAPI())
	defer stop()
	if _, err := deltaClient.Sync(ctx, &User{UserID: "usr_3kd81mQa7Lp", Name: "Ann"}, &delta.InformOpts{Tags: []string{"vip"}}); err != nil {
		panic(err)
	}

	ann, err := delta.GetAs[*User](ctx, deltaClient, "usr_3kd81mQa7Lp")
	if err != nil {
		panic(err)
	}
	fmt.Println(ann.Object.Name, ann.State)

	users, err := delta.ListAs[*User](ctx, deltaClient, delta.Filter{Tags: []string{"vip"}}, delta.Page{})
	if undecodable := new(delta.UndecodableError); errors.As(err, &undecodable) {
		fmt.Println("stored by another version of User:", undecodable.ObjectID)
	} else if err != nil {
		panic(err)
	}
	for _, user := range users {
		fmt.Println(user.ObjectID, user.SyncedAt != nil)
	}
	// Output:
	// Ann synced
	// usr_3kd81mQa7Lp true
}

func ExampleClient_Subscribe() {
	deltaClient, _, stop := startUsers(newUsersAPI())
	defer stop()

	events, cancel := deltaClient.Subscribe(delta.EventCategoryObjectSynced, delta.EventCategoryObjectFailed)
	defer cancel()
	if _, err := deltaClient.Inform(ctx, &User{UserID: "usr_3kd81mQa7Lp", Name: "Ann"}, nil); err != nil {
		panic(err)
	}
	for e := range events {
		switch {
		case e.EventCategory == delta.EventCategoryObjectSynced && e.Resource.SyncCount == 1:
			fmt.Println("created", e.Resource.ObjectID)
		case e.EventCategory == delta.EventCategoryObjectSynced:
			fmt.Println("updated", e.Resource.ObjectID)
		case e.Resource.State == deltatype.ResourceStateDegraded:
			fmt.Println("given up", e.Resource.ObjectID)
		}
		cancel() // ends the loop; a service goes on
	}
	// Output: created usr_3kd81mQa7Lp
}

func ExampleResource_CompleteTx() {
	deltaClient, pool, stop := startWork(addCredit)
	defer stop()
	if _, err := pool.Exec(ctx, "CREATE TABLE balances AS SELECT 'usr_3kd81mQa7Lp' AS user_id, 5 AS credit"); err != nil {
		panic(err)
	}

	row, err := deltaClient.Sync(ctx, &User{UserID: "usr_3kd81mQa7Lp"}, nil)
	if err != nil {
		panic(err)
	}
	var credit int
	if err := pool.QueryRow(ctx, "SELECT credit FROM balances").Scan(&credit); err != nil {
		panic(err)
	}
	fmt.Println(row.State, credit)
	// Output: synced 15
}

// addCredit is a Work that writes to Delta's own database: its writes commit together with the outcome, or not at all.
func addCredit(ctx context.Context, r *delta.Resource[*User]) error {
	tx, err := delta.ClientFromContext(ctx).Pool().Begin(ctx)
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

func ExampleClient_RunInform() {
	deltaClient, stop := startInformer(newUsersAPI(&User{UserID: "usr_3kd81mQa7Lp", Name: "Ann"}, &User{UserID: "usr_8fT2xw0VbRc", Name: "Bob"}))
	defer stop()

	run, err := deltaClient.RunInform(ctx, delta.ScheduleInformParams{
		ResourceKind:    "user",
		ProcessExisting: true, // also those that did not change
		RunForeground:   true, // until all of it has settled
	}, &delta.InformOptions{Labels: map[string]string{"team": "blue"}})
	if err != nil {
		panic(err)
	}
	fmt.Println(run.Listed, "users")
	// Output: 2 users
}

func ExampleClient_List() {
	deltaClient, _, stop := startUsers(newUsersAPI())
	defer stop()

	for _, id := range []string{"usr_3kd81mQa7Lp", "usr_8fT2xw0VbRc"} {
		if _, err := deltaClient.Sync(ctx, &User{UserID: id}, &delta.InformOpts{Tags: []string{"vip"}}); !errors.Is(err, delta.ErrNotSynced) {
			panic(err) // the API refuses users without a name
		}
	}

	filter := delta.Filter{
		Kinds:  []string{"user"},
		States: []deltatype.ResourceState{deltatype.ResourceStateDegraded},
		Tags:   []string{"vip"},
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
	fmt.Println(deltaClient.RetryAll(ctx, filter))
	// Output:
	// usr_3kd81mQa7Lp resource degraded: Bad Request
	// usr_8fT2xw0VbRc resource degraded: Bad Request
	// 2 <nil>
}

func ExampleClient_Explain() {
	deltaClient, _, stop := startUsers(newUsersAPI())
	defer stop()
	if _, err := deltaClient.Sync(ctx, &User{UserID: "usr_8fT2xw0VbRc"}, nil); !errors.Is(err, delta.ErrNotSynced) {
		panic(err)
	}

	explained, err := deltaClient.Explain(ctx, "user", "usr_8fT2xw0VbRc")
	if err != nil {
		panic(err)
	}
	for _, reason := range explained.Reasons { // the first one decides
		fmt.Println(reason.Code, "for", time.Until(*reason.Until).Round(time.Hour))
	}
	// Output: hopeless for 24h0m0s
}

func ExampleClient_Register() {
	pool, temporal, prefix := openStack()
	controllers := delta.NewControllers()
	delta.AddController(controllers, &UserController{api: newUsersAPI()})
	deltaClient, err := delta.NewClient(pool, &delta.Config{
		Controllers: controllers, Temporal: temporal, WorkflowIDPrefix: prefix, TaskQueue: prefix + "/mine",
		DisableInformers: true,                          // they would delete users that the API does not have yet
		Logger:           slog.New(slog.DiscardHandler), // by default, to the standard output
	})
	if err != nil {
		panic(err)
	}
	w := sdkworker.New(temporal, prefix+"/mine", sdkworker.Options{})
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

	row, err := deltaClient.Sync(ctx, &User{UserID: "usr_3kd81mQa7Lp", Name: "Ann"}, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(row.ObjectID, row.State)
	// Output: usr_3kd81mQa7Lp synced
}

// In Work or Inform, one object may lead to others.
func ExampleClientFromContext() {
	deltaClient, _, stop := startWork(func(ctx context.Context, r *delta.Resource[*User]) error {
		if r.Object.UserID == "usr_8fT2xw0VbRc" {
			return nil
		}
		_, err := delta.ClientFromContext(ctx).Inform(ctx, &User{UserID: "usr_8fT2xw0VbRc"}, nil)
		return err
	})
	defer stop()

	if _, err := deltaClient.Sync(ctx, &User{UserID: "usr_3kd81mQa7Lp"}, nil); err != nil {
		panic(err)
	}
	led, err := deltaClient.Get(ctx, "user", "usr_8fT2xw0VbRc")
	if err != nil {
		panic(err)
	}
	fmt.Println(led.ObjectID)
	// Output: usr_8fT2xw0VbRc
}
