package io.github.msallogout;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.sql.Connection;
import java.sql.PreparedStatement;
import javax.sql.DataSource;

/** Interfaces of which a test changes one method. */
final class Proxies {
    interface Handler {
        Object handle(Method method, Object[] arguments) throws Throwable;
    }

    private Proxies() {}

    static <T> T of(Class<T> type, Handler handler) {
        return type.cast(Proxy.newProxyInstance(
                Proxies.class.getClassLoader(), new Class<?>[] {type}, (self, method, arguments) -> {
                    try {
                        return handler.handle(method, arguments);
                    } catch (InvocationTargetException wrapped) {
                        throw wrapped.getCause();
                    }
                }));
    }

    /** A data source that does something before each statement, and whose connections cannot be unwrapped. */
    static DataSource beforeEach(DataSource dataSource, Handler action) {
        return of(DataSource.class, (method, arguments) -> {
            Object result = method.invoke(dataSource, arguments);
            return result instanceof Connection connection ? beforeEach(connection, action) : result;
        });
    }

    private static Connection beforeEach(Connection connection, Handler action) {
        return of(Connection.class, (method, arguments) -> {
            if (method.getName().equals("isWrapperFor")) {
                return false;
            }
            Object result = method.invoke(connection, arguments);
            return result instanceof PreparedStatement statement ? beforeEach(connection, statement, action) : result;
        });
    }

    private static PreparedStatement beforeEach(Connection connection, PreparedStatement statement, Handler action) {
        return of(PreparedStatement.class, (method, arguments) -> {
            if (method.getName().equals("executeQuery")) {
                action.handle(method, new Object[] {connection});
            }
            return method.invoke(statement, arguments);
        });
    }
}
