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

// bulkCommands maps the commands for all resources that match a filter to those of the client.
var bulkCommands = map[CommandName]delta.BulkCommand{
	CommandRetryAll: delta.BulkRetry, CommandInvalidateAll: delta.BulkInvalidate, CommandDeleteAll: delta.BulkDelete, CommandReviveAll: delta.BulkRevive,
}

// bulkLink leads to the page that asks for confirmation of a command.
type bulkLink struct {
	Name    CommandName
	Address string
}

// allowedBulkLinks returns links to the bulk commands that the user may give. There are none for an empty filter: a command for everything is rarely
// meant, and the command line has it.
func (h *handler) allowedBulkLinks(r *http.Request, user string, asked url.Values, filter delta.Filter) (all []bulkLink) {
	fields := filterValues(asked)
	if len(fields) == 0 {
		return nil
	}
	for _, name := range []CommandName{CommandRetryAll, CommandInvalidateAll, CommandReviveAll, CommandDeleteAll} {
		if h.isAuthorized(r, newBulkCommand(name, user, filter)) && canApplyTo(name, filter.States) {
			fields.Set("command", string(name))
			all = append(all, bulkLink{name, "bulk?" + fields.Encode()})
		}
	}
	return all
}

// canApplyTo reports whether a command can apply to resources in any of the states; without states, it can.
func canApplyTo(name CommandName, states []deltatype.ResourceState) bool {
	one := map[CommandName]CommandName{
		CommandRetryAll: CommandRetry, CommandInvalidateAll: CommandInvalidate, CommandDeleteAll: CommandDelete, CommandReviveAll: CommandRevive,
	}[name]
	return len(states) == 0 || slices.ContainsFunc(states, func(s deltatype.ResourceState) bool { return slices.Contains(allowedCommands(s), one) })
}

// newBulkCommand returns the command that Authorize is asked about.
func newBulkCommand(name CommandName, user string, filter delta.Filter) Command {
	c := Command{Name: name, User: user, Filter: &filter}
	if len(filter.Kinds) == 1 {
		c.Kind = filter.Kinds[0]
	}
	return c
}

// confirmBulkCommand shows how many resources match, and asks before a command is given to all of them.
func (h *handler) confirmBulkCommand(w http.ResponseWriter, r *http.Request, user string) {
	asked := r.URL.Query()
	name := CommandName(asked.Get("command"))
	command, known := bulkCommands[name]
	filter, err := h.allowedFilter(asked)
	fields := filterFieldList(asked)
	switch {
	case !known:
		h.showProblem(w, http.StatusBadRequest, "There is no such command.")
		return
	case err != nil:
		h.showProblem(w, http.StatusBadRequest, err.Error())
		return
	case len(fields) == 0:
		h.showProblem(w, http.StatusBadRequest, needsFilterText)
		return
	case !h.isAuthorized(r, newBulkCommand(name, user, filter)):
		h.showProblem(w, http.StatusForbidden, "You may not give this command.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	count, err := h.client.CountForAll(ctx, command, filter, delta.MaxCounted)
	// Few matches among many resources can take too long to count. The command can be given without a count.
	isUncounted := errors.Is(cmp.Or(ctx.Err(), err), context.DeadlineExceeded)
	if err != nil && !isUncounted {
		h.showError(w, r, err)
		return
	}
	h.renderPage(w, http.StatusOK, "bulk.html", map[string]any{
		"Name": name, "Command": command, "Fields": fields, "Count": count, "IsUncounted": isUncounted, "IsMore": count == delta.MaxCounted,
		"Timeout": h.config.ReadTimeout, "Token": formToken(w, r), "Back": resourcesAddress + "?" + filterValues(asked).Encode(),
	})
}

// startBulkCommand starts a command for all resources that match, and redirects the browser to its page.
func (h *handler) startBulkCommand(w http.ResponseWriter, r *http.Request, user string) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	name := CommandName(r.PostFormValue("command"))
	command, known := bulkCommands[name]
	filter, err := h.allowedFilter(r.PostForm)
	fields := filterFieldList(r.PostForm)
	log := h.config.Logger.With("command", string(name), "filter", filterValues(r.PostForm).Encode(), "user", user, "remote", r.RemoteAddr)
	status, text := h.checkCommand(r, newBulkCommand(name, user, filter), known)
	switch {
	case status != 0:
	case err != nil:
		status, text = http.StatusBadRequest, err.Error()
	case len(fields) == 0:
		status, text = http.StatusBadRequest, needsFilterText
	}
	if status != 0 {
		log.Warn("delta: console: command refused", "reason", text)
		h.showProblem(w, status, text)
		return
	}
	of, _ := strconv.Atoi(r.PostFormValue("count")) // the number that the user saw, for the progress bar only
	run := &bulkRun{name: name, command: command, user: user, fields: fields, filter: filter, of: max(0, min(of, delta.MaxCounted))}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commandTimeout)
	defer cancel()
	record, err := recordCommand(ctx, h.client, log, newBulkCommand(name, user, filter), filterValues(r.PostForm).Encode())
	if err != nil {
		h.showError(w, r, err)
		return
	}
	if !h.bulkRuns.start(h.client, run, record, log) {
		endCommand(h.client, log, record, new(int64), errTooMany)
		h.showProblem(w, http.StatusServiceUnavailable, "Too many such commands run in this process: wait for one of them, or stop it.")
		return
	}
	redirectTo(w, run.pageAddress())
}

// stopBulkRun ends a command after the current page of rows.
func (h *handler) stopBulkRun(w http.ResponseWriter, r *http.Request, user string) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	run := h.bulkRuns.find(r.PostFormValue("id"))
	if run == nil {
		h.showProblem(w, http.StatusNotFound, noSuchRunText)
		return
	}
	log := h.config.Logger.With("command", string(run.name), "user", user, "remote", r.RemoteAddr)
	if status, text := h.checkCommand(r, newBulkCommand(run.name, user, run.filter), true); status != 0 {
		log.Warn("delta: console: stop of a command refused", "reason", text)
		h.showProblem(w, status, text)
		return
	}
	log.Info("delta: console: stopping a command")
	run.stop()
	redirectTo(w, run.pageAddress())
}

const needsFilterText = "The console gives no command to everything: choose resources by a field of the filter."

const noSuchRunText = "This process of the console knows no such command. Its changes stay; the list of resources shows their states."

// showBulkRun shows the progress of a command, and the current states of the first resources that it was given to.
func (h *handler) showBulkRun(w http.ResponseWriter, r *http.Request, user string) {
	run := h.bulkRuns.find(r.URL.Query().Get("id"))
	if run == nil {
		h.showProblem(w, http.StatusNotFound, noSuchRunText)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	now := run.currentState()
	var rows []*deltatype.ResourceRow
	for _, kind := range now.kinds {
		some, err := h.client.List(ctx, delta.Filter{Kinds: []string{kind}, ObjectIDs: now.ids[kind]}, delta.Page{Limit: pageRows})
		if err != nil {
			h.showError(w, r, cmp.Or(ctx.Err(), err))
			return
		}
		rows = append(rows, some...)
	}
	page := map[string]any{
		"Run": now, "Name": run.name, "User": run.user, "Fields": run.fields, "Of": run.of, "At": &run.startedAt, "Lines": h.listLines(rows),
		"Self": run.pageAddress(), "Every": refreshTrigger(0), "ID": run.id,
	}
	if !now.Ended && h.isAuthorized(r, newBulkCommand(run.name, user, run.filter)) {
		page["Token"] = formToken(w, r)
	}
	h.renderPage(w, http.StatusOK, "bulk-run.html", page)
}
