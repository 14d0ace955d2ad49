package main

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"
)

// fakeProvider simulates an external system. After a number of calls it requests a pause. It refuses plans that it does not know.
type fakeProvider struct {
	quota int
	pause time.Duration

	mu        sync.Mutex
	customers map[string]customer
	left      int       // of the quota
	restsTo   time.Time // zero until the quota is used up
	tooMany   int       // calls refused because of the quota
}

func newFakeProvider(quota int, pause time.Duration) *fakeProvider {
	return &fakeProvider{quota: quota, pause: pause, left: quota, customers: map[string]customer{}}
}

func (p *fakeProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodGet {
		_ = json.NewEncoder(w).Encode(slices.SortedFunc(maps.Values(p.customers), func(a, b customer) int { return cmp.Compare(a.CustomerID, b.CustomerID) }))
		return
	}
	if !p.takeCall(time.Now()) {
		p.tooMany++
		w.Header().Set("Retry-After", strconv.Itoa(int(p.pause/time.Second)))
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	id := path.Base(r.URL.Path)
	_, there := p.customers[id]
	var c customer
	switch {
	case r.Header.Get("Idempotency-Key") == "":
		w.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodDelete && !there:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(p.customers, id)
	case json.NewDecoder(r.Body).Decode(&c) != nil || c.CustomerID != id || c.Plan == "unknown":
		w.WriteHeader(http.StatusUnprocessableEntity)
	default:
		p.customers[id] = c
	}
}

// takeCall reports whether the quota allows a call, and counts it.
func (p *fakeProvider) takeCall(now time.Time) bool {
	switch {
	case p.left == 0 && p.restsTo.IsZero():
		p.restsTo = now.Add(p.pause)
	case p.left == 0 && !now.Before(p.restsTo):
		p.left, p.restsTo = p.quota, time.Time{}
	}
	if p.left == 0 {
		return false
	}
	p.left--
	return true
}

// copyCustomers returns a copy of the provider's customers.
func (p *fakeProvider) copyCustomers() map[string]customer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.customers)
}

// countRefused returns the number of calls refused because of the quota.
func (p *fakeProvider) countRefused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tooMany
}
