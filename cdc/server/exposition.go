package server

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
)

// family is a metric with all its labels. The table below is the only place that says which there are: what it does not have is
// not exposed, and docs/stream.md has the same table.
type family struct {
	name, kind, help string
}

// families are in the order in which they are exposed. Their names follow https://prometheus.io/docs/practices/naming.
var families = []family{
	{"delta_stream_build_info", "gauge", "1, with the version of Delta, the revision that was built, and the version of Go."},
	{"delta_stream_database_up", "gauge", "1 if the database has answered this scrape."},
	{"delta_stream_clients", "gauge", "Clients that stream at the moment, tails among them."},
	{"delta_stream_snapshots", "gauge", "Snapshots that are held. Each holds back vacuum."},
	{"delta_stream_transactions_total", "counter", "Transactions that were sent to clients."},
	{"delta_stream_changes_total", "counter", "Changes that were sent to clients."},
	{"delta_stream_sent_bytes_total", "counter", "Bytes of messages that were sent to clients."},
	{"delta_stream_snapshot_rows_total", "counter", "Rows of snapshots that were sent to clients."},
	{"delta_stream_acks_total", "counter", "Acknowledgements of clients."},
	{"delta_stream_bad_acks_total", "counter", "Acknowledgements of what was not sent, or not to be acknowledged any more."},
	{"delta_stream_slow_clients_total", "counter", "Clients that were cut because they did not read."},
	{"delta_stream_unauthorized_requests_total", "counter", "Requests that were refused: no token, or a page or host that may not call."},
	{"delta_stream_request_duration_seconds", "histogram", "How long requests took, without streams."},
	{"delta_stream_reconnects_total", "counter", "Connections to the database that were lost and replaced under a stream."},
	{"delta_stream_heartbeats_total", "counter", "Heartbeats that were written into the log."},
	{"delta_stream_spilled_transactions_total", "counter", "Transactions that were larger than the memory for them and went through a temporary file."},
	{"delta_stream_spilled_bytes", "gauge", "Bytes in temporary files of large transactions."},
	{"delta_stream_spill_limit_bytes", "gauge", "How much one stream may have in temporary files."},
	{"delta_stream_spill_free_bytes", "gauge", "Free space where the temporary files are."},
	{"delta_stream_spill_size_bytes", "gauge", "Size of the file system where the temporary files are."},
	{"delta_stream_slot_active", "gauge", "1 if something reads the slot."},
	{"delta_stream_slot_inactive_seconds", "gauge", "For how long nothing has read the slot."},
	{"delta_stream_slot_wal_status", "gauge", "1 for the status that the slot has, 0 for the others."},
	{"delta_stream_slot_safe_wal_bytes", "gauge", "How much WAL can be written before the slot may be invalidated."},
	{"delta_stream_slot_retained_bytes", "gauge", "WAL that the database keeps for the slot."},
	{"delta_stream_slot_lag_bytes", "gauge", "WAL behind what the slot has confirmed."},
	{"delta_stream_slot_lag_seconds", "gauge", "How long the last confirmations took from the flush of the WAL."},
	{"delta_stream_slot_unacknowledged", "gauge", "Transactions that came from the database and were not acknowledged."},
	{"delta_stream_slot_unacknowledged_age_seconds", "gauge", "How long ago the oldest of them was committed."},
	{"delta_stream_slot_delivery_seconds", "gauge", "How long the last heartbeat took from its commit until all before it was taken for delivery, or has been on its way."},

	{"go_info", "gauge", "1, with the version of Go."},
	{"go_gomaxprocs", "gauge", "GOMAXPROCS."},
	{"go_goroutines", "gauge", "Goroutines that exist."},
	{"go_threads", "gauge", "Threads of the operating system that exist."},
	{"go_gc_duration_seconds", "summary", "Pauses of garbage collections."},
	{"go_memstats_alloc_bytes", "gauge", "Bytes of objects on the heap."},
	{"go_memstats_alloc_bytes_total", "counter", "Bytes that were allocated."},
	{"go_memstats_heap_inuse_bytes", "gauge", "Bytes of spans of the heap that are in use."},
	{"go_memstats_heap_objects", "gauge", "Objects on the heap."},
	{"go_memstats_next_gc_bytes", "gauge", "Size of the heap at which the next garbage collection begins."},
	{"go_memstats_sys_bytes", "gauge", "Memory that Go has from the operating system."},
	{"process_cpu_seconds_total", "counter", "CPU time of user and system."},
	{"process_resident_memory_bytes", "gauge", "Resident memory."},
	{"process_virtual_memory_bytes", "gauge", "Virtual memory."},
	{"process_start_time_seconds", "gauge", "When the process began, since 1970."},
	{"process_open_fds", "gauge", "Open file descriptors."},
	{"process_max_fds", "gauge", "How many file descriptors may be open."},
}

// familyOf is the family of a sample's name: that of a histogram is shorter.
var familyOf = func() map[string]string {
	of := map[string]string{}
	for _, f := range families {
		of[f.name] = f.name
		if f.kind == "histogram" || f.kind == "summary" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				of[f.name+suffix] = f.name
			}
		}
	}
	return of
}()

// exposition gathers samples and writes them with HELP and TYPE, all of a family together, as the format demands
// (https://prometheus.io/docs/instrumenting/exposition_formats). ExposeMetadata of the metrics package was rejected: its help is
// empty, and it is one switch for the whole program, which is not this package's to turn.
type exposition struct {
	samples map[string][]string
}

func newExposition() *exposition { return &exposition{samples: map[string][]string{}} }

// add takes a sample; labels are in braces, or empty.
func (e *exposition) add(name, labels string, value float64) {
	e.line(name, fmt.Sprintf("%s%s %v", name, labels, value))
}

func (e *exposition) line(name, line string) {
	if family, ok := familyOf[name]; ok {
		e.samples[family] = append(e.samples[family], line)
	}
}

// include takes the samples that a function of the metrics package writes.
func (e *exposition) include(write func(io.Writer)) {
	var text bytes.Buffer
	write(&text)
	for line := range strings.Lines(text.String()) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' { // the program may have switched on ExposeMetadata
			continue
		}
		e.line(line[:strings.IndexAny(line, "{ ")], line)
	}
}

func (e *exposition) write(w *bytes.Buffer) {
	for _, f := range families {
		lines := e.samples[f.name]
		if len(lines) == 0 {
			continue
		}
		if f.kind == "gauge" || f.kind == "counter" { // those of the others have an order of their own
			slices.Sort(lines)
		}
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		for _, line := range lines {
			w.WriteString(line + "\n")
		}
	}
}
