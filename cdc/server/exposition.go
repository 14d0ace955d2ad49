package server

import "github.com/chariot-giving/delta/internal/exposition"

// families are in the order in which they are exposed. Their names follow https://prometheus.io/docs/practices/naming. This is the only place
// that says which there are: what it does not have is not exposed, and docs/stream.md has the same table.
var families = []exposition.Family{
	{Name: "delta_stream_build_info", Type: "gauge", Help: "1, with the version of Delta, the revision that was built, and the version of Go."},
	{Name: "delta_stream_database_up", Type: "gauge", Help: "1 if the database has answered this scrape."},
	{Name: "delta_stream_clients", Type: "gauge", Help: "Clients that stream at the moment, tails among them."},
	{Name: "delta_stream_snapshots", Type: "gauge", Help: "Snapshots that are held. Each holds back vacuum."},
	{Name: "delta_stream_transactions_total", Type: "counter", Help: "Transactions that were sent to clients."},
	{Name: "delta_stream_changes_total", Type: "counter", Help: "Changes that were sent to clients."},
	{Name: "delta_stream_sent_bytes_total", Type: "counter", Help: "Bytes of messages that were sent to clients."},
	{Name: "delta_stream_snapshot_rows_total", Type: "counter", Help: "Rows of snapshots that were sent to clients."},
	{Name: "delta_stream_acks_total", Type: "counter", Help: "Acknowledgements of clients."},
	{Name: "delta_stream_bad_acks_total", Type: "counter", Help: "Acknowledgements of what was not sent, or not to be acknowledged any more."},
	{Name: "delta_stream_undecodable_rows_total", Type: "counter", Help: "Rows that were left out because they cannot be decoded."},
	{Name: "delta_stream_slow_clients_total", Type: "counter", Help: "Clients that were cut because they did not read."},
	{Name: "delta_stream_unauthorized_requests_total", Type: "counter", Help: "Requests that were refused: no token, or a page or host that may not call."},
	{Name: "delta_stream_request_duration_seconds", Type: "histogram", Help: "How long requests took, without streams."},
	{Name: "delta_stream_reconnects_total", Type: "counter", Help: "Connections to the database that were lost and replaced under a stream."},
	{Name: "delta_stream_heartbeats_total", Type: "counter", Help: "Heartbeats that were written into the log."},
	{Name: "delta_stream_spilled_transactions_total", Type: "counter", Help: "Transactions that were larger than the memory for them and went through a temporary file."},
	{Name: "delta_stream_spilled_bytes", Type: "gauge", Help: "Bytes in temporary files of large transactions."},
	{Name: "delta_stream_spill_limit_bytes", Type: "gauge", Help: "How much one stream may have in temporary files."},
	{Name: "delta_stream_spill_free_bytes", Type: "gauge", Help: "Free space where the temporary files are."},
	{Name: "delta_stream_spill_size_bytes", Type: "gauge", Help: "Size of the file system where the temporary files are."},
	{Name: "delta_stream_slot_active", Type: "gauge", Help: "1 if something reads the slot."},
	{Name: "delta_stream_slot_inactive_seconds", Type: "gauge", Help: "For how long nothing has read the slot."},
	{Name: "delta_stream_slot_wal_status", Type: "gauge", Help: "1 for the status that the slot has, 0 for the others."},
	{Name: "delta_stream_slot_safe_wal_bytes", Type: "gauge", Help: "How much WAL can be written before the slot may be invalidated."},
	{Name: "delta_stream_slot_retained_bytes", Type: "gauge", Help: "WAL that the database keeps for the slot."},
	{Name: "delta_stream_slot_lag_bytes", Type: "gauge", Help: "WAL behind what the slot has confirmed."},
	{Name: "delta_stream_slot_lag_seconds", Type: "gauge", Help: "How long the last confirmations took from the flush of the WAL."},
	{Name: "delta_stream_slot_unacknowledged", Type: "gauge", Help: "Transactions that came from the database and were not acknowledged."},
	{Name: "delta_stream_slot_unacknowledged_age_seconds", Type: "gauge", Help: "How long ago the oldest of them was committed."},
	{Name: "delta_stream_slot_delivery_seconds", Type: "gauge", Help: "How long the last heartbeat took from its commit until all before it was taken for delivery, or has been on its way."},

	{Name: "go_info", Type: "gauge", Help: "1, with the version of Go."},
	{Name: "go_gomaxprocs", Type: "gauge", Help: "GOMAXPROCS."},
	{Name: "go_goroutines", Type: "gauge", Help: "Goroutines that exist."},
	{Name: "go_threads", Type: "gauge", Help: "Threads of the operating system that exist."},
	{Name: "go_gc_duration_seconds", Type: "summary", Help: "Pauses of garbage collections."},
	{Name: "go_memstats_alloc_bytes", Type: "gauge", Help: "Bytes of objects on the heap."},
	{Name: "go_memstats_alloc_bytes_total", Type: "counter", Help: "Bytes that were allocated."},
	{Name: "go_memstats_heap_inuse_bytes", Type: "gauge", Help: "Bytes of spans of the heap that are in use."},
	{Name: "go_memstats_heap_objects", Type: "gauge", Help: "Objects on the heap."},
	{Name: "go_memstats_next_gc_bytes", Type: "gauge", Help: "Size of the heap at which the next garbage collection begins."},
	{Name: "go_memstats_sys_bytes", Type: "gauge", Help: "Memory that Go has from the operating system."},
	{Name: "process_cpu_seconds_total", Type: "counter", Help: "CPU time of user and system."},
	{Name: "process_resident_memory_bytes", Type: "gauge", Help: "Resident memory."},
	{Name: "process_virtual_memory_bytes", Type: "gauge", Help: "Virtual memory."},
	{Name: "process_start_time_seconds", Type: "gauge", Help: "When the process began, since 1970."},
	{Name: "process_open_fds", Type: "gauge", Help: "Open file descriptors."},
	{Name: "process_max_fds", Type: "gauge", Help: "How many file descriptors may be open."},
}

var exposed = exposition.NewTable(families)
