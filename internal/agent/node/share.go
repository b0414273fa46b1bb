// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

// share says what each pod dialled lately, as long as there are endpoints that the proxy doesn't get. What a pod with
// the right to changes in its own namespace concerns what it gets itself.
func (r *reconciler) share() {
	if !r.proxy.Short() {
		return
	}
	var pods [][]string
	for _, s := range r.pods.snapshot() {
		if s.State != StateCaptured {
			continue
		}
		dialled, err := r.kernel.Dialled(s.Netns)
		if err != nil {
			continue // it is gone, or the comparison of its rules says what is wrong
		}
		clusters := make([]string, len(dialled))
		for i, d := range dialled {
			clusters[i] = d.String()
		}
		pods = append(pods, clusters)
	}
	r.proxy.Prefer(pods)
}
