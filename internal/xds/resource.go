// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type URLs of the resources whose order on a stream matters, and of those that an agent makes itself.
const (
	TypeCluster      = resource.ClusterType
	TypeEndpoint     = resource.EndpointType
	TypeListener     = resource.ListenerType
	TypeRoute        = resource.RouteType
	TypeScopedRoute  = resource.ScopedRouteType
	typeVirtualHost  = resource.VirtualHostType
	TypeSecret       = resource.SecretType
	TypeExtension    = resource.ExtensionConfigType
	TypeRuntime      = resource.RuntimeType
	Wildcard         = "*" // the name that subscribes to everything of a type in the scope
	versionHashBytes = 12  // of SHA-256: collisions are out of reach, and versions stay short on the wire
)

// Resource is one xDS resource, marshalled once and shared by reference between scopes and streams. It is immutable.
type Resource struct {
	name, version string
	// packed is the marshalled message; nil where extension or composed is what it is made of.
	packed    *anypb.Any
	extension *Extension
	composed  *composed
	// eds is computed once, when first needed; see Endpoints.
	eds     string
	edsOnce sync.Once
}

// deterministic marshalling gives equal messages equal bytes, and so equal versions.
var deterministic = proto.MarshalOptions{Deterministic: true}

// NewResource marshals m deterministically; its version is the hash of those bytes, so equal content has an equal
// version on every replica. A message nested in an Any was marshalled by the caller: use deterministic marshalling
// there too, or the version changes without cause. Where content of another origin must have another version though it
// is equal, origin says what it comes of.
func NewResource(name string, m proto.Message, origin ...string) (*Resource, error) {
	if m == nil {
		return nil, fmt.Errorf("resource %q: no message", name)
	}
	packed := new(anypb.Any)
	if err := anypb.MarshalFrom(packed, m, deterministic); err != nil {
		return nil, fmt.Errorf("resource %q: %w", name, err)
	}
	return NewRawResource(name, versionOf(packed.GetValue(), origin...), packed)
}

// NewRawResource wraps bytes that are marshalled already, for a relay that must pass on what it got. With an empty
// version the hash of the bytes is the version. The caller must not change packed afterwards.
func NewRawResource(name, version string, packed *anypb.Any) (*Resource, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if packed.GetTypeUrl() == "" {
		return nil, errors.New("resource " + name + " has no type URL")
	}
	if version == "" {
		version = versionOf(packed.GetValue())
	}
	return &Resource{name: name, version: version, packed: packed}, nil
}

func checkName(name string) error {
	if name == "" || name == Wildcard || !utf8.ValidString(name) {
		return fmt.Errorf("resource name %q is not allowed", name)
	}
	return nil
}

func versionOf(content []byte, origin ...string) string {
	sum := sha256.Sum256(content)
	if len(origin) > 0 {
		sum = sha256.Sum256(append(sum[:], strings.Join(origin, "\x00")...))
	}
	return hex.EncodeToString(sum[:versionHashBytes])
}

// Name is the resource's xDS name.
func (r *Resource) Name() string { return r.name }

// TypeURL is the type URL of the resource's message.
func (r *Resource) TypeURL() string {
	switch {
	case r.extension != nil:
		return TypeExtension
	case r.composed != nil:
		return r.composed.typeURL
	}
	return r.packed.GetTypeUrl()
}

// id is its type and name.
func (r *Resource) id() ID { return ID{r.TypeURL(), r.Name()} }

// Version identifies the content and its origin: resources of one name and equal version are equal.
func (r *Resource) Version() string { return r.version }

// Any is the marshalled message; treat it as read-only.
func (r *Resource) Any() *anypb.Any {
	switch {
	case r.extension != nil:
		return r.extension.packed(r.name)
	case r.composed != nil:
		return r.composed.packed()
	}
	return r.packed
}

// wire is the resource as a response has it.
func (r *Resource) wire() *discoveryv3.Resource {
	return &discoveryv3.Resource{Name: r.name, Version: r.version, Resource: r.Any()}
}

// size is the length of the marshalled message in bytes.
func (r *Resource) size() int {
	switch {
	case r.extension != nil:
		return r.extension.size(r.name)
	case r.composed != nil:
		return r.composed.size()
	}
	return len(r.packed.GetValue())
}

// Endpoints is the EDS name of a cluster that takes its endpoints from EDS, and empty for all else.
func (r *Resource) Endpoints() string {
	r.edsOnce.Do(func() {
		var c clusterv3.Cluster
		if r.TypeURL() == TypeCluster && r.Any().UnmarshalTo(&c) == nil && c.GetType() == clusterv3.Cluster_EDS {
			r.eds = cmp.Or(c.GetEdsClusterConfig().GetServiceName(), c.GetName())
		}
	})
	return r.eds
}

// Equal tells whether both have the same name, type and content; a nil resource equals only nil.
func (r *Resource) Equal(o *Resource) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r == o || (r.Version() == o.Version() && r.Name() == o.Name() && r.TypeURL() == o.TypeURL())
}

// Update sets one resource of a scope. A nil Resource says that the resource is known not to exist, which is an answer:
// who subscribes to it by name is told so. A resource that was never applied is unknown, and its subscribers wait.
type Update struct {
	ID
	Resource *Resource
}

// Set is the update that a resource's content is.
func Set(r *Resource) Update { return Update{r.id(), r} }

// Gone says that a resource doesn't exist.
func Gone(id ID) Update { return Update{ID: id} }
