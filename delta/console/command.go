package console

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// commandTimeout bounds a command. A command does not end with its request: otherwise a browser that goes away would leave its outcome open.
	commandTimeout = 30 * time.Second
	maxFormBytes   = 64 << 10
)

// allowedCommands returns the commands that the state of a resource allows.
func allowedCommands(state deltatype.ResourceState) []CommandName {
	switch state {
	case deltatype.ResourceStateDegraded, deltatype.ResourceStateFailed:
		return []CommandName{CommandRetry, CommandDelete}
	case deltatype.ResourceStateSynced:
		return []CommandName{CommandInvalidate, CommandDelete}
	case deltatype.ResourceStateDeleted:
		return []CommandName{CommandRevive}
	default:
		return []CommandName{CommandDelete}
	}
}

func (h *handler) isAuthorized(r *http.Request, c Command) bool {
	return h.config.Authorize != nil && h.config.Authorize(r, c)
}

// handleCommand executes the command of a form, and redirects the browser to the resource.
func (h *handler) handleCommand(w http.ResponseWriter, r *http.Request, user string) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	c := Command{Name: CommandName(r.PostFormValue("command")), User: user, Kind: r.PostFormValue("kind"), ObjectID: r.PostFormValue("id")}
	do, known := map[CommandName]func(context.Context) (*deltatype.ResourceRow, error){
		CommandRetry: func(ctx context.Context) (*deltatype.ResourceRow, error) {
			return h.client.Retry(ctx, c.Kind, c.ObjectID)
		},
		CommandInvalidate: func(ctx context.Context) (*deltatype.ResourceRow, error) {
			return h.client.Invalidate(ctx, objectReference{c})
		},
		CommandDelete: func(ctx context.Context) (*deltatype.ResourceRow, error) {
			return h.client.Delete(ctx, c.Kind, c.ObjectID)
		},
		CommandRevive: func(ctx context.Context) (*deltatype.ResourceRow, error) {
			return h.client.Revive(ctx, c.Kind, c.ObjectID)
		},
	}[c.Name]
	log := h.config.Logger.With("command", string(c.Name), "kind", c.Kind, "object_id", c.ObjectID, "user", user, "remote", r.RemoteAddr)
	h.executeCommand(w, r, c, known, log, h.showError, func(ctx context.Context) (next string, done []any, err error) {
		row, err := do(ctx)
		if err != nil {
			return "", nil, err
		}
		return resourceAddress(c.Kind, c.ObjectID), []any{"state", string(row.State), "generation", row.Generation}, nil
	})
}

// executeCommand executes a command unless it is refused, and redirects the browser to the next page. The log line of its end has the attributes that do returns.
func (h *handler) executeCommand(
	w http.ResponseWriter, r *http.Request, c Command, known bool, log *slog.Logger, failed func(http.ResponseWriter, *http.Request, error),
	do func(context.Context) (next string, done []any, err error),
) {
	if status, text := h.checkCommand(r, c, known); status != 0 {
		log.Warn("delta: console: command refused", "reason", text)
		h.showProblem(w, status, text)
		return
	}
	// Log before and after, so that a process that dies in between leaves a line.
	log.Info("delta: console: command begins")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commandTimeout)
	defer cancel()
	record, err := recordCommand(ctx, h.client, log, c, "")
	if err != nil {
		failed(w, r, err)
		return
	}
	next, done, err := do(ctx)
	endCommand(h.client, log, record, changedBy(c, err), err)
	h.survey.noteCommand()
	if err != nil {
		log.Warn("delta: console: command failed", "error", err)
		failed(w, r, err)
		return
	}
	log.Info("delta: console: command done", done...)
	redirectTo(w, next)
}

// redirectTo redirects the browser to a page. http.Redirect would make the address absolute, without the prefix of a proxy.
func redirectTo(w http.ResponseWriter, next string) {
	w.Header().Set("Location", next)
	w.WriteHeader(http.StatusSeeOther)
}

// objectReference is an object with a name and no content.
type objectReference struct{ command Command }

func (r objectReference) ID() string   { return r.command.ObjectID }
func (r objectReference) Kind() string { return r.command.Kind }

var _ delta.Object = objectReference{}

// resourceAddress returns the address of the page of a resource, relative to all pages.
func resourceAddress(kind, id string) string {
	return "resource?" + url.Values{"kind": {kind}, "id": {id}}.Encode()
}
