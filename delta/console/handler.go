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
	"visible": escapeInvisible, "when": timeText, "number": wording.Number[int64], "count": wording.Count[int64], "duration": wording.Duration, "interval": wording.Interval,
	"ago": wording.When, "size": wording.Size, "kindPage": kindAddress, "shorten": shortenText,
}).ParseFS(files, "page/*.html"))

type handler struct {
	client     *delta.Client
	config     Config
	survey     survey
	informRuns informRuns
	bulkRuns   bulkRuns
	tails      atomic.Int32 // open live tails
}

// Handler serves the console of a client, which need not be started. It is safe for concurrent use. It returns an error if the configuration is
// invalid.
func Handler(client *delta.Client, config Config) (http.Handler, error) {
	config = config.WithDefaults()
	if err := config.validate(client); err != nil {
		return nil, err
	}
	config.Passwords = maps.Clone(config.Passwords)
	return &handler{client: client, config: config, survey: survey{client: client}, informRuns: informRuns{client: client, logger: config.Logger}}, nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setSecurityHeaders(w.Header())
	user, refused := h.identifyUser(r)
	switch refused {
	case http.StatusUnauthorized:
		if h.config.Passwords != nil || h.config.Token != "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="delta console", charset="UTF-8"`)
		}
		h.showProblem(w, refused, "Authentication is required: a user and a password, or a token.")
		return
	case http.StatusForbidden:
		h.showProblem(w, refused, "This console has no authentication. It answers only callers of its own machine, by the name localhost.")
		return
	}
	page, known := h.listRoutes()[r.URL.Path]
	takes := http.MethodGet
	if page.isCommand {
		takes = http.MethodPost
	}
	switch {
	case known && (r.Method == takes || r.Method == http.MethodHead && !page.isCommand):
		page.serve(w, r, user)
	case known || r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.showProblem(w, http.StatusMethodNotAllowed, "This address does not accept this method.")
	default:
		h.showProblem(w, http.StatusNotFound, "There is no such page.")
	}
}

// route is an address of the console. It has only one slash, the first: all links are relative, so that a prefix does not matter.
type route struct {
	serve func(w http.ResponseWriter, r *http.Request, user string)
	// isCommand is set for an address that accepts the forms of commands, and has no page.
	isCommand bool
}

// resourcesAddress is the address of the list of resources, relative to all pages.
const resourcesAddress = "resources"

func (h *handler) listRoutes() map[string]route {
	return map[string]route{
		"/":             {serve: h.showOverview},
		"/kind":         {serve: h.showKind},
		"/run":          {serve: h.showInformRun},
		"/doctor":       {serve: h.showDoctor},
		"/kind-command": {serve: h.handleKindCommand, isCommand: true},
		"/resources":    {serve: h.showResources},
		"/resource":     {serve: h.showResource},
		"/object":       {serve: h.serveObject},
		"/command":      {serve: h.handleCommand, isCommand: true},
		"/bulk":         {serve: h.confirmBulkCommand},
		"/bulk-start":   {serve: h.startBulkCommand, isCommand: true},
		"/bulk-run":     {serve: h.showBulkRun},
		"/bulk-stop":    {serve: h.stopBulkRun, isCommand: true},
		"/console.css":  {serve: h.serveStylesheet},
		"/htmx.js":      {serve: h.serveHTMX},
		"/tail":         {serve: h.showTail},
		"/tail-events":  {serve: h.streamTail},
		"/tail.js":      {serve: h.serveTailScript},
		"/streams":      {serve: h.showStreams},
		"/commands":     {serve: h.showCommands},
	}
}

func (h *handler) serveStylesheet(w http.ResponseWriter, _ *http.Request, _ string) {
	h.serveFile(w, "page/console.css", "text/css; charset=utf-8")
}

// serveFile serves one of the embedded files.
func (h *handler) serveFile(w http.ResponseWriter, name, contentType string) {
	text, err := files.ReadFile(name)
	if err != nil {
		h.showProblem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(text)
}

// renderPage renders the whole page before it writes any of it: half a page with status 200 would look complete.
func (h *handler) renderPage(w http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, data); err != nil {
		h.config.Logger.Error("delta: console: rendering a page", "page", name, "error", err)
		http.Error(w, "The page cannot be rendered; the log says why.", http.StatusInternalServerError)
		return
	}
	if begun, is := w.(*earlyResponse); is {
		_, _ = w.Write(begun.cutHead(page.Bytes())) //nolint:gosec // the template has escaped it
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w)
}

// showProblem answers with a sentence.
func (h *handler) showProblem(w http.ResponseWriter, status int, text string) {
	h.renderPage(w, status, "problem.html", map[string]any{"Title": http.StatusText(status), "Text": text})
}

// showError answers with an error of the client. Errors of the database go to the log, because they may name its host and role.
func (h *handler) showError(w http.ResponseWriter, r *http.Request, err error) {
	var state *delta.StateError
	var input *delta.InputError
	switch {
	case errors.Is(err, delta.ErrNotFound):
		h.showProblem(w, http.StatusNotFound, "There is no such resource.")
	case errors.As(err, &state):
		h.showProblem(w, http.StatusConflict, "The state of the resource does not allow it: "+state.Error())
	case errors.As(err, &input):
		h.showProblem(w, http.StatusBadRequest, input.Error())
	case r.Context().Err() != nil: // the browser has disconnected
	case errors.Is(err, context.DeadlineExceeded):
		h.showProblem(w, http.StatusServiceUnavailable, "The database needed longer than "+h.config.ReadTimeout.String()+
			" (ReadTimeout). A filter that few of many resources match reads many rows: name a kind and an id.")
	default:
		h.config.Logger.Error("delta: console: a request failed", "path", r.URL.Path, "error", err)
		h.showProblem(w, http.StatusInternalServerError, "The request failed; the log of the console says why.")
	}
}
