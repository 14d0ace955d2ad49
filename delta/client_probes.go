package delta

import (
	"fmt"
	"net/http"
)

// Probes returns a handler for the probes of Kubernetes, or of another supervisor, with the paths /livez and /readyz. Each
// answers 200 or 503, and says in plain text what is wrong.
//
//	                                     /livez   /readyz
//	not started, or starting              200       503
//	without controllers: it only informs  200       200
//	started and healthy                   200       200
//	Postgres or Temporal is away          200       503
//	a worker gave up, until it is replaced 200      503
//	a dispatcher fails                    200       503
//	a dispatcher is stuck                 503       503
//	the listener is lost                  200       200, and says so
//	stopping, or stopped by Stop          200       503
//	stopped, because Start's context ended 503      503
//
// A restart brings neither Postgres nor Temporal back, and costs the running attempts, so /livez does not check them. Give
// /readyz a timeout of more than 3 seconds. Its text may name hosts: do not serve it to the public.
func Probes(c *Client) http.Handler {
	if c == nil {
		panic("delta: Probes: the client is nil: give one that NewClient has made")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		if err := c.checkAlive(); err != nil {
			answerProbe(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		answerProbe(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		status, lines := http.StatusOK, []string{}
		for _, found := range c.findProblems(r.Context()) {
			lines = append(lines, found.Error())
			if found.Part != HealthListener {
				status = http.StatusServiceUnavailable
			}
		}
		if status == http.StatusOK {
			lines = append([]string{"ready"}, lines...)
		}
		answerProbe(w, status, lines...)
	})
	return mux
}

func answerProbe(w http.ResponseWriter, status int, lines ...string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	for _, line := range lines {
		_, _ = fmt.Fprintln(w, line)
	}
}
