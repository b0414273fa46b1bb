// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"time"
)

const (
	// shareEvery is how often it is looked what pods dial, while the proxy can't have all of it: an address that was taken
	// back is noticed so, and Envoy has its connection wait for 15 s.
	shareEvery = 5 * time.Second
	// sharePause is between any two looks.
	sharePause = time.Second
)

// Share shares out what the proxy may hold, at once when a connection waits for its address.
func (f *Follower) Share(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.endpoints.Asks():
		case <-time.After(shareEvery):
		}
		f.share()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(sharePause):
		}
	}
}

// share says what each pod dialled lately, as long as there are endpoints or addresses that the proxy doesn't get. What
// a pod with the right to changes in its own namespace concerns what it gets itself.
func (f *Follower) share() {
	if !f.endpoints.Short() {
		return
	}
	var pods [][]string
	for _, s := range f.statuses.snapshot() {
		if s.State != StateCaptured {
			continue
		}
		dialled, err := f.kernel.Dialled(s.Netns)
		if err != nil {
			continue // it is gone, or the comparison of its rules says what is wrong
		}
		clusters := make([]string, len(dialled))
		for i, d := range dialled {
			clusters[i] = d.String()
		}
		pods = append(pods, clusters)
	}
	f.endpoints.Prefer(pods)
}
