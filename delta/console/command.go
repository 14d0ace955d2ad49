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
	// commandTimeout bounds a command. It does not end with its request: a browser that goes away would leave it open whether it was done.
	commandTimeout = 30 * time.Second
	mostFormBytes  = 64 << 10
)

// allowed are the commands that the state of a resource allows.
func allowed(state deltatype.ResourceState) []CommandName {
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

func (h *handler) mayDo(r *http.Request, c Command) bool {
	return h.config.Authorize != nil && h.config.Authorize(r, c)
}

// command carries out what a form asks for, and sends the browser back to the resource.
func (h *handler) command(w http.ResponseWriter, r *http.Request, user string) {
	r.Body = http.MaxBytesReader(w, r.Body, mostFormBytes)
	c := Command{Name: CommandName(r.PostFormValue("command")), User: user, Kind: r.PostFormValue("kind"), ObjectID: r.PostFormValue("id")}
	do, known := map[CommandName]func(context.Context) (*deltatype.ResourceRow, error){
		CommandRetry: func(ctx context.Context) (*deltatype.ResourceRow, error) {
			return h.client.Retry(ctx, c.Kind, c.ObjectID)
		},
		CommandInvalidate: func(ctx context.Context) (*deltatype.ResourceRow, error) {
			return h.client.Invalidate(ctx, reference{c})
		},
		CommandDelete: func(ctx context.Context) (*deltatype.ResourceRow, error) {
			return h.client.Delete(ctx, c.Kind, c.ObjectID)
		},
		CommandRevive: func(ctx context.Context) (*deltatype.ResourceRow, error) {
			return h.client.Revive(ctx, c.Kind, c.ObjectID)
		},
	}[c.Name]
	log := h.config.Logger.With("command", string(c.Name), "kind", c.Kind, "object_id", c.ObjectID, "user", user, "remote", r.RemoteAddr)
	h.carryOut(w, r, c, known, log, h.failed, func(ctx context.Context) (next string, done []any, err error) {
		row, err := do(ctx)
		if err != nil {
			return "", nil, err
		}
		return addressOf(c.Kind, c.ObjectID), []any{"state", string(row.State), "generation", row.Generation}, nil
	})
}

// carryOut does what a command says, unless it is refused, and sends the browser on to the next page. The line that it is done has what do returns with it.
func (h *handler) carryOut(
	w http.ResponseWriter, r *http.Request, c Command, known bool, log *slog.Logger, failed func(http.ResponseWriter, *http.Request, error),
	do func(context.Context) (next string, done []any, err error),
) {
	if status, text := h.refusal(r, c, known); status != 0 {
		log.Warn("delta: console: command refused", "reason", text)
		h.problem(w, status, text)
		return
	}
	// Before and after: a process that dies between them has left a line too.
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
	goOn(w, next)
}

// goOn sends the browser on to a page. http.Redirect would make the address absolute by a path that lacks the prefix.
func goOn(w http.ResponseWriter, next string) {
	w.Header().Set("Location", next)
	w.WriteHeader(http.StatusSeeOther)
}

// reference is an object of which only the name matters.
type reference struct{ command Command }

func (r reference) ID() string   { return r.command.ObjectID }
func (r reference) Kind() string { return r.command.Kind }

var _ delta.Object = reference{}

// addressOf is the page of a resource, relative to all pages.
func addressOf(kind, id string) string {
	return "resource?" + url.Values{"kind": {kind}, "id": {id}}.Encode()
}
