// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"

	"k8s.io/apimachinery/pkg/types"
)

// Attachment is what routes and policies attach to, and so what one route table is for: a port of a Service, for what
// callers in the mesh send there, or a listener of a Gateway. One of the two is set. What decides between routes, and
// what is made of those that win, goes by it alone; which of the two it is matters only where they are found, and
// served.
type Attachment struct {
	Port     ServicePort
	Listener Listener
}

// Namespace of the Service or Gateway: whose owner's say it is.
func (a Attachment) Namespace() string {
	return cmp.Or(a.Port.Namespace, a.Listener.Gateway.Namespace)
}

// Compare orders attachments; those of one Service by port.
func (a Attachment) Compare(b Attachment) int {
	l, m := a.Listener, b.Listener
	return cmp.Or(
		a.Port.Compare(b.Port),
		cmp.Compare(l.Gateway.Namespace, m.Gateway.Namespace), cmp.Compare(l.Gateway.Name, m.Gateway.Name),
		cmp.Compare(l.Section, m.Section), cmp.Compare(l.Hostname, m.Hostname),
	)
}

// Listener is a listener of a Gateway, for requests to one host.
type Listener struct {
	Gateway types.NamespacedName
	// Section is the listener's name.
	Section string
	// Hostname is the listener's own, or the narrower one that a route asks for; a first label "*" stands for one or more
	// labels, and "" for every host.
	Hostname string
}
