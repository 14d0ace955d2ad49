package delta_test

import (
	"cmp"
	"context"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
)

// usersAPI stands for the API of the other system. It refuses users without a name, and no longer knows deleted ones.
type usersAPI struct {
	mu    sync.Mutex
	users map[string]*User
}

func newUsersAPI(users ...*User) *usersAPI {
	api := &usersAPI{users: map[string]*User{}}
	for _, u := range users {
		api.users[u.UserID] = u
	}
	return api
}

func respond(status int) *http.Response {
	return &http.Response{StatusCode: status, Status: http.StatusText(status)}
}

func (a *usersAPI) Put(_ context.Context, user *User, _ string) (*http.Response, error) {
	if user.Name == "" {
		return respond(http.StatusBadRequest), nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users[user.UserID] = user
	return respond(http.StatusOK), nil
}

func (a *usersAPI) PutMany(ctx context.Context, users []*delta.Resource[*User]) (statuses []int, err error) {
	for _, u := range users {
		response, err := a.Put(ctx, u.Object, u.IdempotencyKey())
		if err != nil {
			return nil, err
		}
		statuses = append(statuses, response.StatusCode)
	}
	return statuses, nil
}

func (a *usersAPI) Delete(_ context.Context, user *User, _ string) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.users, user.UserID)
	return respond(http.StatusOK), nil
}

func (a *usersAPI) List(context.Context, *time.Time, string) (users []*User, next string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.users), func(a, b *User) int { return cmp.Compare(a.UserID, b.UserID) }), "", nil
}

// startUsers starts a client for users in a new database. It runs no informers: they would delete users that the API
// does not have yet.
func startUsers(api *usersAPI) (deltaClient *delta.Client, pool *pgxpool.Pool, stop func()) {
	return startController(&UserController{api: api}, true)
}

// startInformer is startUsers with informers.
func startInformer(api *usersAPI) (deltaClient *delta.Client, stop func()) {
	deltaClient, _, stop = startController(&UserController{api: api}, false)
	return deltaClient, stop
}

// startWork is startUsers with another Work.
func startWork(work func(context.Context, *delta.Resource[*User]) error) (deltaClient *delta.Client, pool *pgxpool.Pool, stop func()) {
	return startController(&workController{work: work}, true)
}

type workController struct {
	delta.WorkerDefaults[*User]
	delta.ListerDefaults[*User]
	work func(context.Context, *delta.Resource[*User]) error
}

func (c *workController) Work(ctx context.Context, r *delta.Resource[*User]) error {
	return c.work(ctx, r)
}

func (*workController) List(context.Context, *delta.InformOptions) iter.Seq2[*User, error] {
	return func(func(*User, error) bool) {}
}

func startController(controller delta.Controller[*User], disableInformers bool) (deltaClient *delta.Client, pool *pgxpool.Pool, stop func()) {
	pool, temporal, prefix := openStack()
	controllers := delta.NewControllers()
	delta.AddController(controllers, controller)
	deltaClient, err := delta.NewClient(pool, &delta.Config{
		Controllers: controllers, DisableInformers: disableInformers,
		Temporal: temporal, WorkflowIDPrefix: prefix,
		Logger: slog.New(slog.DiscardHandler), // by default, to the standard output
	})
	if err != nil {
		panic(err)
	}
	if err := deltaClient.Start(ctx); err != nil {
		panic(err)
	}
	return deltaClient, pool, func() { _ = deltaClient.Stop(ctx) }
}
