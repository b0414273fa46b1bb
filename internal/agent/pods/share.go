// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"time"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
)

const (
	// shareEvery is how often it is looked what pods dial, while the proxy can't have all of it: an address that was taken
	// back is noticed so, and Envoy has its connection wait for 15 s.
	shareEvery = 5 * time.Second
	// sharePause is between any two looks, and lookPart how many times as long as the last one took: a pod that dialled
	// 4,000 addresses takes 14 ms.
	sharePause = time.Second
	lookPart   = 4
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
		began := time.Now()
		f.share()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(sharePause, lookPart*time.Since(began))):
		}
	}
}

// share says what each pod dialled lately, as long as there are endpoints or addresses that the proxy doesn't get, or
// may be too many identities for what it has. What a pod with the right to changes in its own namespace concerns what
// it gets itself.
func (f *Follower) share() {
	short, unsure := f.endpoints.Short(), f.endpoints.Unsure(f.statuses.identities())
	if !short && !unsure {
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
		if unsure {
			f.endpoints.DialledBy(s.Identity, byCluster(dialled))
		}
		clusters := make([]string, len(dialled))
		for i, d := range dialled {
			clusters[i] = d.To.String()
		}
		pods = append(pods, clusters)
	}
	if short {
		f.endpoints.Prefer(pods)
	}
	if unsure {
		f.endpoints.Forget()
	}
}

// goes tells what a pod dialled that is about to go. Nobody could tell later, and the proxy keeps what it has of the
// pod's identity.
func (f *Follower) goes(uid string) {
	s, known := f.statuses.of(uid)
	if !known || s.Netns == "" || s.Identity == "" {
		return
	}
	if dialled, err := f.kernel.Dialled(s.Netns); err == nil {
		f.endpoints.DialledBy(s.Identity, byCluster(dialled))
	}
}

func byCluster(dialled []capture.Dial) map[string]time.Time {
	out := make(map[string]time.Time, len(dialled))
	for _, d := range dialled {
		out[d.To.String()] = d.At
	}
	return out
}
