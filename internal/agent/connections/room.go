// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package connections

import "strings"

// makeRoom for one more connection of a pod. Where there is none left, whoever has most gives some up for who has less:
// one namespace for another, and within a namespace one pod for another. What is forgotten for that is told of again.
// So nobody is worse off for what others have, down to an equal part; and who is alone has it all.
func (k *Keeper) makeRoom(pod string) bool {
	if k.open < k.inAll {
		return true
	}
	own := namespaceOf(pod)
	most := own
	for namespace, n := range k.ofNamespace {
		if n > k.ofNamespace[most] {
			most = namespace
		}
	}
	if k.ofNamespace[most] <= k.ofNamespace[own]+1 { // it would only come back
		most = own
	}
	full := k.fullest(most)
	if full == "" || most == own && len(k.pods[full].open) <= len(k.pods[pod].open)+1 {
		return false
	}
	for which := range k.pods[full].open {
		delete(k.pods[full].open, which)
		break
	}
	k.gave(full)
	k.noRoom++
	return true
}

// fullest is the pod of a namespace that most is known of.
func (k *Keeper) fullest(namespace string) (name string) {
	for pod, p := range k.pods {
		if namespaceOf(pod) == namespace && len(p.open) > 0 && (name == "" || len(p.open) > len(k.pods[name].open)) {
			name = pod
		}
	}
	return name
}

func (k *Keeper) took(pod string) {
	k.open++
	k.ofNamespace[namespaceOf(pod)]++
}

func (k *Keeper) gave(pod string) {
	k.open--
	namespace := namespaceOf(pod)
	if k.ofNamespace[namespace]--; k.ofNamespace[namespace] == 0 {
		delete(k.ofNamespace, namespace)
	}
}

func namespaceOf(pod string) string {
	namespace, _, _ := strings.Cut(pod, "/")
	return namespace
}
