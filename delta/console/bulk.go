package console

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// bulkCommands are the commands for all that match a filter, with those of the client that carry them out.
var bulkCommands = map[CommandName]delta.BulkCommand{
	CommandRetryAll: delta.BulkRetry, CommandInvalidateAll: delta.BulkInvalidate, CommandDeleteAll: delta.BulkDelete, CommandReviveAll: delta.BulkRevive,
}

// bulkLink leads to the question before a command.
type bulkLink struct {
	Name    CommandName
	Address string
}

// bulkAllowed are the commands that a user may give for all that match. There are none without a field: everything is meant rarely, and
// the command line has it.
func (h *handler) bulkAllowed(r *http.Request, user string, asked url.Values, filter delta.Filter) (all []bulkLink) {
	fields := fieldsOf(asked)
	if len(fields) == 0 {
		return nil
	}
	for _, name := range []CommandName{CommandRetryAll, CommandInvalidateAll, CommandReviveAll, CommandDeleteAll} {
		if h.mayDo(r, bulkCommand(name, user, filter)) && takes(name, filter.States) {
			fields.Set("command", string(name))
			all = append(all, bulkLink{name, "bulk?" + fields.Encode()})
		}
	}
	return all
}

// takes reports whether a command is for resources in any of some states; all where there are none.
func takes(name CommandName, states []deltatype.ResourceState) bool {
	one := map[CommandName]CommandName{
		CommandRetryAll: CommandRetry, CommandInvalidateAll: CommandInvalidate, CommandDeleteAll: CommandDelete, CommandReviveAll: CommandRevive,
	}[name]
	return len(states) == 0 || slices.ContainsFunc(states, func(s deltatype.ResourceState) bool { return slices.Contains(allowed(s), one) })
}

// bulkCommand is the command that Authorize is asked about.
func bulkCommand(name CommandName, user string, filter delta.Filter) Command {
	c := Command{Name: name, User: user, Filter: &filter}
	if len(filter.Kinds) == 1 {
		c.Kind = filter.Kinds[0]
	}
	return c
}

// bulk asks, with the number first, before a command for all that match.
func (h *handler) bulk(w http.ResponseWriter, r *http.Request, user string) {
	asked := r.URL.Query()
	name := CommandName(asked.Get("command"))
	command, known := bulkCommands[name]
	filter, err := h.filterOf(asked)
	fields := fieldList(asked)
	switch {
	case !known:
		h.problem(w, http.StatusBadRequest, "There is no such command.")
		return
	case err != nil:
		h.problem(w, http.StatusBadRequest, err.Error())
		return
	case len(fields) == 0:
		h.problem(w, http.StatusBadRequest, forEverything)
		return
	case !h.mayDo(r, bulkCommand(name, user, filter)):
		h.problem(w, http.StatusForbidden, "You may not give this command.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	count, err := h.client.CountForAll(ctx, command, filter, delta.MaxCounted)
	// A filter whose matches are too rare to be counted in time can be meant all the same.
	isUncounted := errors.Is(cmp.Or(ctx.Err(), err), context.DeadlineExceeded)
	if err != nil && !isUncounted {
		h.failed(w, r, err)
		return
	}
	h.render(w, http.StatusOK, "bulk.html", map[string]any{
		"Name": name, "Command": command, "Fields": fields, "Count": count, "IsUncounted": isUncounted, "IsMore": count == delta.MaxCounted,
		"Timeout": h.config.ReadTimeout, "Token": formToken(w, r), "Back": resourcesPage + "?" + fieldsOf(asked).Encode(),
	})
}

// bulkStart begins a command for all that match, and sends the browser to its page.
func (h *handler) bulkStart(w http.ResponseWriter, r *http.Request, user string) {
	r.Body = http.MaxBytesReader(w, r.Body, mostFormBytes)
	name := CommandName(r.PostFormValue("command"))
	command, known := bulkCommands[name]
	filter, err := h.filterOf(r.PostForm)
	fields := fieldList(r.PostForm)
	log := h.config.Logger.With("command", string(name), "filter", fieldsOf(r.PostForm).Encode(), "user", user, "remote", r.RemoteAddr)
	status, text := h.refusal(r, bulkCommand(name, user, filter), known)
	switch {
	case status != 0:
	case err != nil:
		status, text = http.StatusBadRequest, err.Error()
	case len(fields) == 0:
		status, text = http.StatusBadRequest, forEverything
	}
	if status != 0 {
		log.Warn("delta: console: command refused", "reason", text)
		h.problem(w, status, text)
		return
	}
	of, _ := strconv.Atoi(r.PostFormValue("count")) // what the user was told, for the bar only
	run := &bulkRun{name: name, command: command, user: user, fields: fields, filter: filter, of: max(0, min(of, delta.MaxCounted))}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commandTimeout)
	defer cancel()
	record, err := recordCommand(ctx, h.client, log, bulkCommand(name, user, filter), fieldsOf(r.PostForm).Encode())
	if err != nil {
		h.failed(w, r, err)
		return
	}
	if !h.bulkRuns.start(h.client, run, record, log) {
		endCommand(h.client, log, record, new(int64), errTooMany)
		h.problem(w, http.StatusServiceUnavailable, "Too many such commands go on in this process: wait for one of them, or stop it.")
		return
	}
	goOn(w, run.address())
}

// bulkStop ends a command after the page of rows that it is at.
func (h *handler) bulkStop(w http.ResponseWriter, r *http.Request, user string) {
	r.Body = http.MaxBytesReader(w, r.Body, mostFormBytes)
	run := h.bulkRuns.find(r.PostFormValue("id"))
	if run == nil {
		h.problem(w, http.StatusNotFound, noSuchRun)
		return
	}
	log := h.config.Logger.With("command", string(run.name), "user", user, "remote", r.RemoteAddr)
	if status, text := h.refusal(r, bulkCommand(run.name, user, run.filter), true); status != 0 {
		log.Warn("delta: console: stop of a command refused", "reason", text)
		h.problem(w, status, text)
		return
	}
	log.Info("delta: console: command is stopped")
	run.stop()
	goOn(w, run.address())
}

const forEverything = "A command for everything is not given here: choose resources by a field of the filter."

const noSuchRun = "This process of the console knows no such command. What it has done is done; the list of resources shows how they stand."

// bulkProgress shows how far a command is, and how the first resources that it was given to stand now.
func (h *handler) bulkProgress(w http.ResponseWriter, r *http.Request, user string) {
	run := h.bulkRuns.find(r.URL.Query().Get("id"))
	if run == nil {
		h.problem(w, http.StatusNotFound, noSuchRun)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	now := run.now()
	var rows []*deltatype.ResourceRow
	for _, kind := range now.kinds {
		some, err := h.client.List(ctx, delta.Filter{Kinds: []string{kind}, ObjectIDs: now.ids[kind]}, delta.Page{Limit: pageRows})
		if err != nil {
			h.failed(w, r, cmp.Or(ctx.Err(), err))
			return
		}
		rows = append(rows, some...)
	}
	page := map[string]any{
		"Run": now, "Name": run.name, "User": run.user, "Fields": run.fields, "Of": run.of, "At": &run.startedAt, "Lines": h.lines(rows),
		"Self": run.address(), "Every": liveEvery(0), "ID": run.id,
	}
	if !now.Ended && h.mayDo(r, bulkCommand(run.name, user, run.filter)) {
		page["Token"] = formToken(w, r)
	}
	h.render(w, http.StatusOK, "bulk-run.html", page)
}
