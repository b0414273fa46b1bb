// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package connections

import "strings"

// room is who has how many of the connections that are known. It is asked for each connection that comes when there is
// no room left, so nothing there grows with the number of pods.
type room struct {
	open       int
	namespaces *ranking
	// pods of each namespace.
	pods map[string]*ranking
}

func newRoom() room { return room{namespaces: newRanking(), pods: map[string]*ranking{}} }

// makeRoom for one more connection of a pod. Where there is none left, whoever has most gives some up for who has less:
// one namespace for another, and within a namespace one pod for another. What is forgotten for that is told of again.
// So nobody is worse off for what others have, down to an equal part; and who is alone has it all.
func (k *Keeper) makeRoom(pod string) bool {
	if k.room.open < k.inAll {
		return true
	}
	own := namespaceOf(pod)
	most, has := k.room.namespaces.first()
	if has <= k.room.namespaces.of[own]+1 { // it would only come back
		most = own
	}
	if k.room.pods[most] == nil {
		return false
	}
	full, has := k.room.pods[most].first()
	if most == own && has <= len(k.pods[pod].open)+1 {
		return false
	}
	for which := range k.pods[full].open {
		delete(k.pods[full].open, which)
		break
	}
	k.room.gave(full)
	k.noRoom++
	return true
}

func (r *room) took(pod string) {
	r.open++
	namespace := namespaceOf(pod)
	r.namespaces.add(namespace, 1)
	if r.pods[namespace] == nil {
		r.pods[namespace] = newRanking()
	}
	r.pods[namespace].add(pod, 1)
}

func (r *room) gave(pod string) {
	r.open--
	namespace := namespaceOf(pod)
	r.namespaces.add(namespace, -1)
	if r.pods[namespace].add(pod, -1); r.pods[namespace].most == 0 {
		delete(r.pods, namespace)
	}
}

func namespaceOf(pod string) string {
	namespace, _, _ := strings.Cut(pod, "/")
	return namespace
}

// ranking knows who has most of something.
type ranking struct {
	of map[string]int
	// with lists who has so many, and most is how many who has most has.
	with map[int]map[string]struct{}
	most int
}

func newRanking() *ranking {
	return &ranking{of: map[string]int{}, with: map[int]map[string]struct{}{}}
}

// add one, or take one away: so the most changes by one at most, and nobody has to be looked for.
func (r *ranking) add(name string, one int) {
	had := r.of[name]
	has := had + one
	if delete(r.with[had], name); len(r.with[had]) == 0 {
		delete(r.with, had)
	}
	if delete(r.of, name); has > 0 {
		if r.with[has] == nil {
			r.with[has] = map[string]struct{}{}
		}
		r.of[name], r.with[has][name] = has, struct{}{}
	}
	if r.most = max(r.most, has); r.with[r.most] == nil {
		r.most--
	}
}

// first is one of those who have most.
func (r *ranking) first() (name string, has int) {
	for name := range r.with[r.most] {
		return name, r.most
	}
	return "", 0
}
