// Package link is a wire that can be cut: a TCP relay between one router and the API server.
package link

import (
	"io"
	"net"
	"sync"
)

// Link relays every connection to one address, unless it is cut.
type Link struct {
	target   string
	listener net.Listener

	mutex sync.Mutex
	isCut bool
	ends  map[net.Conn]struct{}
}

// To starts a link to an address.
func To(target string) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	link := &Link{target: target, listener: listener, ends: map[net.Conn]struct{}{}}
	go link.serve()
	return link, nil
}

// Address is where to connect to.
func (l *Link) Address() string { return l.listener.Addr().String() }

// Cut breaks every connection, and every later one until Mend.
func (l *Link) Cut() { l.set(true) }

// Mend lets connections through again.
func (l *Link) Mend() { l.set(false) }

// Shake breaks every connection once.
func (l *Link) Shake() { l.set(true); l.set(false) }

// Close ends the link for good.
func (l *Link) Close() {
	_ = l.listener.Close()
	l.Cut()
}

func (l *Link) set(isCut bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.isCut = isCut
	if isCut {
		for end := range l.ends {
			_ = end.Close()
		}
	}
}

func (l *Link) serve() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.relay(near)
	}
}

func (l *Link) relay(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !l.enter(near, far) {
		return
	}
	defer l.leave(near, far)
	over := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		over <- struct{}{}
	}
	go pass(near, far)
	go pass(far, near)
	<-over
}

func (l *Link) enter(ends ...net.Conn) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.isCut {
		return false
	}
	for _, end := range ends {
		l.ends[end] = struct{}{}
	}
	return true
}

func (l *Link) leave(ends ...net.Conn) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, end := range ends {
		delete(l.ends, end)
	}
}
