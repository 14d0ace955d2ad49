package console

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"maps"
	"net/http"
	"sync/atomic"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

//go:embed page
var files embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"visible": visible, "when": when, "number": wording.Number[int64], "count": wording.Count[int64], "duration": wording.Duration, "interval": wording.Interval,
	"ago": wording.When, "size": wording.Size, "kindPage": kindAddress, "shorten": shortened,
}).ParseFS(files, "page/*.html"))

type handler struct {
	client   *delta.Client
	config   Config
	survey   survey
	runs     runs
	bulkRuns bulkRuns
	tails    atomic.Int32 // live tails that are open
}

// Handler serves the console of a client, which need not be started. It is safe for concurrent use. It returns an error where the configuration breaks
// a rule.
func Handler(client *delta.Client, config Config) (http.Handler, error) {
	config = config.WithDefaults()
	if err := config.validate(client); err != nil {
		return nil, err
	}
	config.Passwords = maps.Clone(config.Passwords)
	return &handler{client: client, config: config, survey: survey{client: client}, runs: runs{client: client, logger: config.Logger}}, nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	user, refused := h.identify(r)
	switch refused {
	case http.StatusUnauthorized:
		if h.config.Passwords != nil || h.config.Token != "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="delta console", charset="UTF-8"`)
		}
		h.problem(w, refused, "Say who you are: a user and a password, or a token, that this console knows are needed.")
		return
	case http.StatusForbidden:
		h.problem(w, refused, "This console has no authentication. It answers callers of its own machine only, by the name localhost.")
		return
	}
	page, known := h.routes()[r.URL.Path]
	takes := http.MethodGet
	if page.isCommand {
		takes = http.MethodPost
	}
	switch {
	case known && (r.Method == takes || r.Method == http.MethodHead && !page.isCommand):
		page.serve(w, r, user)
	case known || r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.problem(w, http.StatusMethodNotAllowed, "This address does not take such a request.")
	default:
		h.problem(w, http.StatusNotFound, "There is no such page.")
	}
}

// route is an address of the console. It has no slash but the first: all links are relative, so that a prefix does not matter.
type route struct {
	serve func(w http.ResponseWriter, r *http.Request, user string)
	// isCommand is for one that takes the forms of commands, and shows nothing.
	isCommand bool
}

// resourcesPage is the address of the list of resources, relative to all pages.
const resourcesPage = "resources"

func (h *handler) routes() map[string]route {
	return map[string]route{
		"/":             {serve: h.overview},
		"/kind":         {serve: h.kind},
		"/run":          {serve: h.run},
		"/doctor":       {serve: h.doctor},
		"/kind-command": {serve: h.kindCommand, isCommand: true},
		"/resources":    {serve: h.list},
		"/resource":     {serve: h.resource},
		"/object":       {serve: h.object},
		"/command":      {serve: h.command, isCommand: true},
		"/bulk":         {serve: h.bulk},
		"/bulk-start":   {serve: h.bulkStart, isCommand: true},
		"/bulk-run":     {serve: h.bulkProgress},
		"/bulk-stop":    {serve: h.bulkStop, isCommand: true},
		"/console.css":  {serve: h.style},
		"/htmx.js":      {serve: h.script},
		"/tail":         {serve: h.tail},
		"/tail-events":  {serve: h.tailEvents},
		"/tail.js":      {serve: h.tailScript},
		"/streams":      {serve: h.streams},
		"/commands":     {serve: h.commands},
	}
}

func (h *handler) style(w http.ResponseWriter, _ *http.Request, _ string) {
	h.serveFile(w, "page/console.css", "text/css; charset=utf-8")
}

// serveFile serves one of the embedded files.
func (h *handler) serveFile(w http.ResponseWriter, name, contentType string) {
	text, err := files.ReadFile(name)
	if err != nil {
		h.problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(text)
}

// render makes the whole page before it writes any of it: half a page with status 200 would look like all there is.
func (h *handler) render(w http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, data); err != nil {
		h.config.Logger.Error("delta: console: making a page", "page", name, "error", err)
		http.Error(w, "The page cannot be made; the log says why.", http.StatusInternalServerError)
		return
	}
	if begun, is := w.(*early); is {
		_, _ = w.Write(begun.rest(page.Bytes())) //nolint:gosec // the template has escaped it
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w)
}

// problem answers with a sentence.
func (h *handler) problem(w http.ResponseWriter, status int, text string) {
	h.render(w, status, "problem.html", map[string]any{"Title": http.StatusText(status), "Text": text})
}

// failed answers with an error of the client. What the database says may name its host and role: that goes to the log.
func (h *handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	var state *delta.StateError
	var input *delta.InputError
	switch {
	case errors.Is(err, delta.ErrNotFound):
		h.problem(w, http.StatusNotFound, "There is no such resource.")
	case errors.As(err, &state):
		h.problem(w, http.StatusConflict, "The state of the resource does not allow it: "+state.Error())
	case errors.As(err, &input):
		h.problem(w, http.StatusBadRequest, input.Error())
	case r.Context().Err() != nil: // the browser has gone
	case errors.Is(err, context.DeadlineExceeded):
		h.problem(w, http.StatusServiceUnavailable, "The database needs longer than "+h.config.ReadTimeout.String()+
			" for it (ReadTimeout). A filter that few of many resources match reads many: name a kind and an id.")
	default:
		h.config.Logger.Error("delta: console: a request failed", "path", r.URL.Path, "error", err)
		h.problem(w, http.StatusInternalServerError, "It failed; the log of the console says why.")
	}
}
