package delta

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTasksWaitForWorkersThatDoNotPoll(t *testing.T) {
	t.Parallel()
	a, b, none := WorkerVersion{"pay", "a"}, WorkerVersion{"pay", "b"}, WorkerVersion{}
	for name, tc := range map[string]struct {
		routing QueueRouting
		polling []WorkerVersion
		why     string
		todo    string
	}{
		"no version is current": {
			QueueRouting{},
			[]WorkerVersion{b, a},
			"no version is current, so tasks wait for workers without one, and only workers of pay:a, pay:b poll", "set-current-version --namespace n --deployment-name pay --build-id b",
		},
		"no worker of the current version": {
			QueueRouting{Current: a},
			[]WorkerVersion{b},
			"the version pay:a is current, and only workers of pay:b poll", "start a client of that build. Or give",
		},
		"workers without a version": {
			QueueRouting{Current: a},
			[]WorkerVersion{none},
			"the version pay:a is current, and only workers without a version poll", "--deployment-name pay --unversioned",
		},
		"no worker of the ramping version": {
			QueueRouting{Current: a, Ramping: b, RampPercent: 5},
			[]WorkerVersion{a},
			"5 % of the workflows are routed to the version pay:b, and none of these polls", "--deployment-name pay --build-id b --delete",
		},
		"a ramp to workers without a version": {
			QueueRouting{Current: a, RampPercent: 5},
			[]WorkerVersion{a},
			"5 % of the workflows are routed to workers without a version", "--deployment-name pay --unversioned --delete",
		},
		"a ramp that gets nothing yet": {QueueRouting{Current: a, Ramping: b}, []WorkerVersion{a}, "", ""},
		"the current version polls":    {QueueRouting{Current: b}, []WorkerVersion{a, b, none}, "", ""},
		"no versions":                  {QueueRouting{}, []WorkerVersion{none}, "", ""},
		"nobody polls":                 {QueueRouting{Current: b}, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, v := range tc.polling {
				tc.routing.addPolling(v)
				tc.routing.addPolling(v)
			}
			require.Len(t, tc.routing.Polling, len(tc.polling))
			why, todo := tc.routing.findGap("n")
			require.Equal(t, tc.why != "", why != "")
			require.Contains(t, why, tc.why)
			require.Contains(t, todo, tc.todo)
		})
	}
}
