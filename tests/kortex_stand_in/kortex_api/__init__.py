"""A stand-in for Kinova's Python client: the calls, fields, units, errors and habits that are known of it.

It is not the vendor's code. Nothing here offers more than what is known of the vendor's client, so that
code which runs on this one does not lean on an invention. ``stand_in`` is the one name the vendor's
package does not have: the wire format, shared with the simulated arm.
"""
