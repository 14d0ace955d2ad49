// Package sinktest has the test that every sink must pass on its real system: an outage loses no message, and keeps the order of each key.
//
//	sinktest.CheckOutage(t, 1000, sinks.Config{Sink: sink}, breakAndRepair, readDelivered)
package sinktest
