// Command stripe is a port of a program for Delta on River: an informer that pages through the customers of a payment provider, and requests only customers
// created since the last pass. Only the import was changed, and FailInform added.
//
// PROVIDER_URL and PROVIDER_KEY are the address and the API key of the provider, DELTA_DATABASE_URL and TEMPORAL_ADDRESS the addresses of Postgres and Temporal;
// `make dev` starts the last two.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
)

// Customer is a customer of the provider.
type Customer struct {
	CustomerID  string
	Plan        string
	CreatedTime time.Time
}

// ID is the provider's id.
func (c Customer) ID() string { return c.CustomerID }

// Kind is the kind of all customers.
func (Customer) Kind() string { return "customer" }

// CreatedAt is the time of creation, from which the next pass continues.
func (c Customer) CreatedAt() time.Time { return c.CreatedTime }

// InformOpts returns the options of all customers.
func (Customer) InformOpts() delta.InformOpts {
	return delta.InformOpts{Namespace: "stripe", Tags: []string{"billing"}}
}

// Settings returns the settings of the kind.
func (Customer) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 10, InformInterval: time.Minute}
}

type customerController struct {
	delta.WorkerDefaults[Customer]
	delta.InformerDefaults[Customer]
	provider, key string
	worked        func(resource *delta.Resource[Customer])
}

func (c *customerController) Work(_ context.Context, resource *delta.Resource[Customer]) error {
	c.worked(resource)
	return nil
}

// page is a response of the provider.
type page struct {
	More bool `json:"has_more"`
	Data []struct {
		ID      string `json:"id"`
		Plan    string `json:"plan"`
		Created int64  `json:"created"`
	} `json:"data"`
}

// Inform lists the customers created after opts.After, which is in 1970 in the first pass.
func (c *customerController) Inform(ctx context.Context, opts *delta.InformOptions) (<-chan Customer, error) {
	customers := make(chan Customer)
	go func() {
		defer close(customers)
		last := ""
		for more := true; more; {
			found, err := c.fetchPage(ctx, opts.After.Unix(), last)
			if err != nil {
				delta.FailInform(ctx, err) // Delta on River has no such call, so there the pass counts as complete
				return
			}
			for _, one := range found.Data {
				last = one.ID
				select {
				case <-ctx.Done():
					return
				case customers <- Customer{CustomerID: one.ID, Plan: one.Plan, CreatedTime: time.Unix(one.Created, 0)}:
				}
			}
			more = found.More
		}
	}()
	return customers, nil
}

// fetchPage requests the page after a customer.
func (c *customerController) fetchPage(ctx context.Context, created int64, last string) (found page, err error) {
	query := url.Values{"limit": {"100"}, "created[gt]": {strconv.FormatInt(created, 10)}}
	if last != "" {
		query.Set("starting_after", last)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.provider+"/v1/customers?"+query.Encode(), nil)
	if err != nil {
		return found, err
	}
	request.Header.Set("Authorization", "Bearer "+c.key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return found, err
	}
	defer response.Body.Close() //nolint:errcheck // the body was only read
	if response.StatusCode != http.StatusOK {
		return found, fmt.Errorf("listing customers: the provider answered %s", response.Status)
	}
	return found, json.NewDecoder(response.Body).Decode(&found)
}

func newConfig(controller *customerController) *delta.Config {
	controllers := delta.NewControllers()
	delta.AddController(controllers, controller)
	return &delta.Config{
		Namespaces:  map[string]delta.NamespaceConfig{"stripe": {MaxWorkers: 3}},
		Controllers: controllers,
	}
}

func run(ctx context.Context, pool *pgxpool.Pool) error {
	client, err := delta.NewClient(pool, newConfig(&customerController{
		provider: os.Getenv("PROVIDER_URL"), key: os.Getenv("PROVIDER_KEY"),
		worked: func(resource *delta.Resource[Customer]) { fmt.Println("synced", resource.Object.CustomerID) },
	}))
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return client.Stop(context.WithoutCancel(ctx))
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	pool, err := pgxpool.New(ctx, os.Getenv("DELTA_DATABASE_URL"))
	if err == nil {
		defer pool.Close()
		err = delta.Migrate(ctx, pool)
	}
	if err == nil {
		err = run(ctx, pool)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the end of the process releases everything
	}
}
