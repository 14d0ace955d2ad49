package delta_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
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
